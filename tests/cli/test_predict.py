"""`qwick doctor --predict`: every size in every format, for people and for programs, from this machine's rates."""

import json

import pytest
from typer.testing import CliRunner

from qwick.bench import limits
from qwick.bench.sizes import SIZES
from qwick.cli.main import commands

RUNNER = CliRunner()
FORMATS = ("Q4_K_M", "Q8_0", "BF16")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small measurements: what comes out means nothing, but all of it comes out."""
    small = {
        "STREAM_BYTES": 1 << 20,
        "WEIGHT_BYTES": 1 << 18,
        "SLICE_SECONDS": 0.0,
        "PANEL": (16, 256),
        "PROMPT_ROWS": 2,
        "NARROW": (32, 256),
        "WIDE": (48, 512),
    }
    for name, value in small.items():
        monkeypatch.setattr(limits, name, value)


def test_the_table_has_every_size_in_every_format() -> None:
    result = RUNNER.invoke(commands, ["doctor", "--predict"])
    assert result.exit_code == 0, result.output
    for size in SIZES:
        lines = [line for line in result.stdout.splitlines() if line.startswith(size)]
        assert [line.split()[1] for line in lines] == list(FORMATS)
        assert all("tok/s" in line and "GiB" in line for line in lines)
    assert "GB/s" in result.stdout
    assert "self-test" not in result.stdout


def test_json_has_the_same_and_the_machine() -> None:
    result = RUNNER.invoke(commands, ["doctor", "--predict", "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert [(row["model"], row["format"]) for row in found["predictions"]] == [(s, f) for s in SIZES for f in FORMATS]
    for row in found["predictions"]:
        assert min(row["decode_rate"], row["prompt_rate"], row["start_seconds"], row["file_bytes"]) > 0
    assert {"bf16", "i8", "u4k", "u6k"} <= found["machine"]["families"].keys()
    sizes = {row["model"] + row["format"]: row["file_bytes"] for row in found["predictions"]}
    assert sizes["qwen3.5:0.8bQ4_K_M"] == pytest.approx(527e6, rel=0.02)  # 542 MB less the vocabulary's metadata
