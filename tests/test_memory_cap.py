"""`--memory` is a cap on all of a process: refused when too little, told when enough, and kept under a hostile load."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from qwick import LLM
from qwick.async_llm import AsyncLLM
from qwick.cli.main import commands
from qwick.cli.options import byte_count
from qwick.engine.memory_plan import MIB, resident_bytes
from qwick.errors import CapacityError, UsageError
from qwick.opening import EngineOptions

ROOT = Path(__file__).parents[1]
HOSTILE = ROOT / "tests" / "hostile_load.py"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("room", [85, 110])
def test_a_hostile_load_stays_below_the_cap(room):
    """MiB above what Python takes in a fresh process: for the model, one long context, and little more."""
    fresh = [
        sys.executable,
        "-c",
        "from tests.hostile_load import *\nfrom qwick.engine.memory_plan import *\nprint(resident_bytes())",
    ]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    taken = int(subprocess.run(fresh, env=environment, check=True, capture_output=True, text=True).stdout)
    cap, count = taken + room * MIB, 30
    command = [sys.executable, str(HOSTILE), str(cap), str(count)]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True, timeout=280)
    told = json.loads(done.stdout)
    assert told["peak"] <= told["planned"] <= cap
    assert told["finished"] + told["cancelled"] == count
    assert told["forgotten"] > 0  # there was not enough for everything


def test_too_little_is_refused_with_what_it_would_take():
    parts = r"takes [\d,]+ MiB: weights \d+, program [\d,]+, states \d+, scratch \d+, KV"
    with pytest.raises(CapacityError, match=parts):
        LLM("pocket", memory=resident_bytes() + 20 * MIB)
    with pytest.raises(CapacityError, match="its weights take"):
        LLM("pocket", memory=resident_bytes())
    with pytest.raises(UsageError, match="at least 1"):
        LLM("pocket", memory=0)


def test_what_is_left_goes_to_the_cache_and_answers_are_the_same():
    with LLM("pocket", threads=1) as free, LLM("pocket", threads=1, memory=1 << 40, cache_memory=1 << 20) as rich:
        assert free.memory is None
        assert rich.memory is not None
        assert rich.memory.num_pages == 64 + (1 << 20) // (rich.memory.pages // rich.memory.num_pages)
        assert rich.backend.cache_bytes == pytest.approx(rich.memory.states + rich.memory.pages, abs=3 * MIB)
        asked = {"max_tokens": 8, "temperature": 0.0}
        assert rich.generate("2 + 2 =", **asked).token_ids == free.generate("2 + 2 =", **asked).token_ids


def test_a_cap_is_for_both_processes_where_the_engine_has_its_own():
    async def opened():
        async with AsyncLLM("pocket", EngineOptions(memory=1 << 40)) as llm:
            return llm.ready.config.memory

    plan = asyncio.run(opened())
    with LLM("pocket", memory=1 << 40) as alone:
        assert plan.weights == alone.memory.weights
    assert plan.process > resident_bytes() + 20 * MIB  # the child's Python too
    assert plan.total <= plan.cap


def test_the_command_line_says_what_memory_goes_to(tmp_path):
    run = ["run", "pocket", "--temperature", "0", "--max-tokens", "2", "2 + 2 ="]
    told = CliRunner().invoke(commands, [*run, "--memory", "4GiB", "--cache-memory", "1MiB"])
    assert told.exit_code == 0
    assert "qwick: memory up to" in told.stderr
    assert "weights 10, program" in told.stderr
    little = CliRunner().invoke(commands, [*run, "--memory", "1MiB"])
    assert little.exit_code == CapacityError.exit_code
    assert "--memory 1 MiB is too little" in little.stderr
    assert CliRunner().invoke(commands, [*run, "--memory", "much"]).exit_code == UsageError.exit_code


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("8GiB", 8 << 30), ("6G", 6 << 30), ("512MiB", 512 << 20), ("1.5k", 1536), ("2GB", 2 * 10**9), ("100", 100),
        ("100b", 100), (" 3 mib ", 3 << 20), ("1T", 1 << 40),
    ],
)  # fmt: skip
def test_sizes_as_people_write_them(text, count):
    assert byte_count("--memory", text) == count


@pytest.mark.parametrize(
    "text", ["", "GiB", "-1G", "1e9", "8 GiB of it", "1PiB", "9" * 21, "99999999999T", "٣G", "1.G"]
)
def test_what_is_no_size_is_refused(text):
    with pytest.raises(UsageError, match="--memory is"):
        byte_count("--memory", text)
