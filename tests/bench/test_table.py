"""The published table: what it asks `qwick bench`, that nothing of a machine's folders gets out, and how it adds up."""

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("matplotlib")

from benchmarks.peers import table
from benchmarks.peers.page import BEGIN, END, extra_times, peer_extra, section, title, write_page
from benchmarks.peers.table import ROWS, Row, why_not, with_threads, without_paths

ROW = Row("0.8b-q4_k_m", "0.8b", "Q4_K_M", 64, 7, asked_ratio=2.0, asked_share=0.85)
ORDER = [row.name for row in ROWS]


def built(folder: Path, *variants: str) -> Path:
    for variant in variants:
        (folder / variant / "bin").mkdir(parents=True)
        (folder / variant / "bin" / "llama-bench").write_text("")
    return folder


def result(rates: list[float], peers: dict[str, list[float]], **fields: Any) -> dict[str, Any]:
    """As bench/report.py has it. The stream: 2 GB/s."""
    row = {"test": "tg64", "depth": 0, "batch": 1, "threads": 2, "rates": rates} | fields
    row |= {"median": sorted(rates)[len(rates) // 2], "min": min(rates), "max": max(rates)}
    row["limit"] = {"speeds": [2e9] * len(rates), "median": 50.0, "share": row["median"] / 50}
    row["peers"] = {
        name: {"rates": theirs, "median": theirs[0], "ratio": rates[0] / theirs[0], "ratio_min": 1.5, "ratio_max": 2.5}
        for name, theirs in peers.items()
    }
    row["best_peer"] = max(peers, key=lambda name: peers[name][0], default=None)
    return row


def kept(
    name: str, *results: dict[str, Any], ratio: float | None = 2.0, command: str = "qwick bench"
) -> dict[str, Any]:
    peers = {peer: "llama-bench 123" for found in results for peer in found["peers"]}
    return {
        "row": name,
        "asked": {"ratio": ratio, "share": 0.85},
        "date": "2026-11-21 13:30 UTC",
        "command": command,
        "machine": table.machine(),
        "report": {
            "machine": {"isa": "avx2", "load_before": 0.1, "load_after": 0.2},
            "model": {"path": "qwen3.5-0.8b-Q4_K_M-1.gguf", "kv_bytes_per_token": 1000},
            "peers": peers,
            "results": list(results),
        },
    }


def test_prompts_have_a_table_of_their_own():
    row = kept("0.8b-prompt", result([120.0], {"plain": [40.0]}, test="pp512"))
    row["asked"]["share"] = None
    decode = kept("0.8b-q4_k_m", result([40.0], {"plain": [20.0]}))
    lines = list(section([decode, row]))
    split = next(i for i, line in enumerate(lines) if "of one matrix product" in line)
    assert "read stream 2.0 GB/s" in "".join(lines[:split])
    assert [("tg64" in line, "pp512" in line) for line in lines if "0.8B" in line] == [(True, False), (False, True)]
    assert "| 240% |" in lines[split + 2]


def test_a_prompt_is_read_and_not_decoded(tmp_path):
    (row,) = [row for row in ROWS if row.name == "0.8b-prompt"]
    arguments = row.arguments(built(tmp_path, "plain"))
    assert arguments[arguments.index("-p") + 1] == "512"
    assert arguments[arguments.index("-n") + 1] == "0"


def test_a_row_asks_for_weights_pairs_and_the_peers_that_were_built(tmp_path):
    arguments = ROW.arguments(built(tmp_path, "plain", "avx2"))
    assert arguments == [
        *("--random-weights", "qwen3.5:0.8b", "--format", "Q4_K_M", "-p", "0", "-n", "64"),
        *("--against", str(tmp_path / "plain" / "bin"), "-r", "7", "--json"),
    ]
    assert ROW.arguments(tmp_path, pairs=1, tokens=2)[7:] == ["2", "--against", arguments[9], "-r", "1", "--json"]


def test_every_row_is_one_that_qwick_bench_takes(tmp_path):
    from typer.main import get_command

    from qwick.cli.main import commands

    bench = get_command(commands).commands["bench"]  # type: ignore[attr-defined]
    for row in ROWS:
        with bench.make_context("bench", with_threads(row, row.arguments(tmp_path))) as context:
            assert context.params["repeats"] == row.pairs
    assert len(set(ORDER)) == len(ORDER)


def test_what_cannot_run_here_is_skipped_with_a_reason(tmp_path):
    assert "did not build plain or amx" in why_not(ROW, tmp_path)
    assert why_not(ROW, built(tmp_path, "plain")) == ""
    assert "no avx_nothing" in why_not(Row("x", "0.8b", "Q8_0", 1, 1, isa="avx_nothing"), tmp_path)


def test_threads_double_up_to_the_cores(monkeypatch):
    row = Row("0.8b-threads", "0.8b", "Q8_0", 1, 1)
    monkeypatch.setattr(table, "default_threads", lambda: (12, "why"))
    assert with_threads(row, [])[1] == "1,2,4,8,12"
    monkeypatch.setattr(table, "default_threads", lambda: (64, "why"))
    assert with_threads(row, [])[1] == "1,2,4,8,16"
    assert with_threads(ROW, []) == []
    monkeypatch.setattr(table, "default_threads", lambda: (2, "why"))
    assert "no scaling" in why_not(row, Path("x"))


def test_no_path_is_published(tmp_path):
    path = str(tmp_path / "plain" / "bin")
    found = kept("0.8b-q4_k_m", result([20.0], {path: [10.0]}))["report"]
    found["model"]["path"] = str(tmp_path / "qwen3.5-0.8b-Q4_K_M-1.gguf")
    clean = without_paths(found, tmp_path)
    assert str(tmp_path) not in json.dumps(clean)
    assert list(clean["peers"]) == ["plain"]
    assert list(clean["results"][0]["peers"]) == ["plain"]
    assert clean["results"][0]["best_peer"] == "plain"
    alone = without_paths(kept("x", result([20.0], {}))["report"], tmp_path)
    assert alone["results"][0]["best_peer"] is None


def test_only_missing_rows_are_measured_and_each_is_kept_at_once(tmp_path, monkeypatch):
    peers, calls = built(tmp_path / "peers", "plain"), []

    def run(program, **_: Any):
        calls.append(program)
        path = str(peers / "plain" / "bin")
        text = json.dumps(kept("x", result([20.0], {path: [10.0]}))["report"])
        failed = len(calls) == 2
        return type("Done", (), {"stdout": text, "returncode": int(failed)})

    monkeypatch.setattr(table.subprocess, "run", run)
    monkeypatch.setattr(table, "machine", dict)
    monkeypatch.setattr(table, "write_page", lambda *_: None)
    arguments = ["table.py", str(peers), "0.8b-q4_k_m", "0.8b-q8_0", "--out", str(tmp_path / "out")]
    monkeypatch.setattr("sys.argv", arguments)
    with pytest.raises(SystemExit, match=r"0\.8b-q8_0: qwick bench failed"):
        table.main()
    (folder,) = (tmp_path / "out").iterdir()
    assert [path.name for path in folder.iterdir()] == ["0.8b-q4_k_m.json"]
    assert str(tmp_path) not in (folder / "0.8b-q4_k_m.json").read_text()
    table.main()
    assert len(calls) == 3  # the one that failed
    table.main()
    assert len(calls) == 3
    monkeypatch.setattr("sys.argv", [*arguments, "--again"])
    table.main()
    assert len(calls) == 5


def test_extra_time_is_taken_within_a_round_and_against_the_stream():
    shallow, deep = result([100.0, 50.0], {}), result([50.0, 40.0], {}, depth=8000)
    report = {"model": {"kv_bytes_per_token": 1000}}
    extra, ideal, times = extra_times(report, shallow, deep)
    assert extra == pytest.approx([0.01, 0.005])
    assert ideal == [0.004, 0.004]
    assert times == pytest.approx([2.5, 1.25])


def test_a_peer_s_extra_time_is_that_of_the_best_one():
    row = kept("x", result([1.0], {"a": [10.0], "b": [20.0]}), result([1.0], {"a": [5.0], "b": [4.0]}, depth=100))
    assert peer_extra(row, 100) == pytest.approx(1 / 5 - 1 / 20)
    assert peer_extra(row, 200) is None
    assert peer_extra(None, 100) is None


def test_where_nothing_was_measured_the_page_stays(tmp_path):
    (tmp_path / "page.md").write_text("as it was")
    write_page(tmp_path / "nothing", tmp_path / "page.md", ORDER)
    assert (tmp_path / "page.md").read_text() == "as it was"


def test_the_page_holds_every_row_with_what_was_asked(tmp_path):
    rows = [
        kept("0.8b-q4_k_m", result([43.0, 42.0, 44.0], {"plain": [21.5], "amx": [20.0]})),
        kept("0.8b-avx2", result([40.0], {"avx2": [20.0]}), ratio=1.6, command="QWICK_ISA=avx2 qwick bench"),
        kept("0.8b-8-sequences", result([140.0], {"plain": [50.0]}, batch=8, test="tg32 b8"), ratio=2.5),
        kept("0.8b-depth", result([50.0], {}), result([25.0], {}, depth=16384)),
        kept("0.8b-threads", result([50.0], {"plain": [25.0]}), result([90.0], {"plain": [30.0]}, threads=4)),
    ]
    text = "\n".join(section(rows))
    for part in (
        "| 0.8B Q4_K_M, tg64 | **43.0** (42.0–44.0) | 21.5 (21.5–21.5; amx 20.0), plain |",
        "| **2.00×** (1.50–2.50; asked: 2.0×) |",
        "| 86% (asked: 85%) |",
        "forced avx2",
        "8 sequences together",
        "| 16,384 | 40.00 | 20.00 | 8.19 | **2.44** (2.44–2.44; asked: 1.3) |",
        "| 4 | **90.0**",
    ):
        assert part in text, part
    assert title(rows[2]) == "0.8B Q4_K_M, tg32, 8 sequences together"

    folder, page = tmp_path / "performance" / "a-machine", tmp_path / "performance.md"
    folder.mkdir(parents=True)
    for row in rows:
        (folder / f"{row['row']}.json").write_text(json.dumps(row))
    page.write_text(f"above\n\n{BEGIN}\nold\n{END}\n\nbelow\n")
    for _ in range(2):
        write_page(tmp_path / "performance", page, ORDER)
        text = page.read_text()
        assert text.startswith(f"above\n\n{BEGIN}\n")
        assert text.endswith(f"{END}\n\nbelow\n")
        assert "old" not in text
        assert text.count("forced avx2") == 1
    for name in ("shares.png", "threads.png"):
        assert (folder / name).read_bytes()[1:4] == b"PNG"
        assert f"(performance/a-machine/{name})" in text
