"""`qwick bench`: tables for people and scripts, JSON, errors. How fast is not tested."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from qwick.bench import plot, random_weights
from qwick.cli.main import commands
from tests.bench.random_model import small_shape, write_small_random
from tests.bench.test_llama_bench import program

RUNNER = CliRunner()
QUICK = ("-p", "4", "-n", "2", "-r", "2", "-t", "1")
PEER = """[{"build_commit": "abc", "n_threads": 1, "n_prompt": 4, "n_gen": 0, "n_depth": 0, "avg_ts": 0.5},
 {"build_commit": "abc", "n_threads": 1, "n_prompt": 0, "n_gen": 2, "n_depth": 0, "avg_ts": 0.25}]"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_small_random(tmp_path_factory.mktemp("bench") / "small.gguf"))


def run(*arguments: str) -> tuple[int, str, str]:
    result = RUNNER.invoke(commands, ["bench", *arguments])
    return result.exit_code, result.stdout, result.stderr


def found(*arguments: str) -> dict:
    code, out, err = run(*arguments, "--json")
    assert code == 0, err
    return json.loads(out)


def test_piped_on_it_is_a_row_a_case_between_tabs(model: str) -> None:
    code, out, err = run(model, *QUICK, "--batch", "1,2", "--depth", "0,100")
    assert code == 0, err
    rows = [line.split("\t") for line in out.splitlines()]
    names = ["pp4", "tg2", "pp4 b2", "tg2 b2", "pp4 @ d100", "tg2 @ d100", "pp4 @ d100 b2", "tg2 @ d100 b2"]
    assert [row[0] for row in rows] == names
    for row in rows:
        assert len(row) == 7
        assert float(row[2]) > 0
        low, high = row[3].split("..")
        assert float(low) <= float(row[2]) <= float(high)
        assert row[5].endswith("%")
    assert "read stream" in err
    assert "load" in err


def test_json_has_all_of_it(model: str) -> None:
    report = found(model, *QUICK, "--ops")
    assert [row["test"] for row in report["results"]] == ["pp4", "tg2"]
    assert all(len(row["rates"]) == 2 for row in report["results"])
    assert report["peers"] == {}
    assert report["model"]["path"] == model
    assert report["machine"]["isa"]
    assert set(report["ops"]) == {"pp4, 1 threads", "tg2, 1 threads"}


def test_zero_leaves_a_kind_out(model: str) -> None:
    assert [row["test"] for row in found(model, *QUICK, "-p", "0")["results"]] == ["tg2"]
    assert [row["test"] for row in found(model, *QUICK, "-n", "0")["results"]] == ["pp4"]


def test_ops_follow_the_figures(model: str) -> None:
    code, out, _ = run(model, *QUICK, "-p", "0", "--ops")
    assert code == 0
    first, *ops = (line.split("\t") for line in out.splitlines())
    assert first[0] == "tg2"
    assert {row[0] for row in ops} == {"tg2, 1 threads"}
    assert "gated_delta" in {row[1] for row in ops}
    assert sum(float(row[3].rstrip("%")) for row in ops) == pytest.approx(100, abs=1)


def test_a_peer_stands_beside_it(model: str, tmp_path: Path) -> None:
    (tmp_path / "answer").write_text(PEER)
    peer = program(tmp_path, f"cat {tmp_path / 'answer'}")
    report = found(model, *QUICK, "--against", str(peer))
    assert report["peers"] == {str(peer): "llama-bench abc"}
    for row, rate in zip(report["results"], (0.5, 0.25), strict=True):
        assert row["best_peer"] == str(peer)
        assert row["peers"][str(peer)]["rates"] == [rate, rate]
        assert row["peers"][str(peer)]["ratio"] == pytest.approx(row["median"] / rate)
    code, out, err = run(model, *QUICK, "--against", str(peer))
    assert code == 0
    assert all(len(line.split("\t")) == 11 for line in out.splitlines())
    assert "llama-bench abc" in err


def test_of_several_peers_the_best_one_stands_in_the_table(model: str, tmp_path: Path) -> None:
    peers = []
    for name, rate in (("slow", "0.25"), ("fast", "0.75")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "answer").write_text(PEER.replace("0.25", rate))
        peers.append(str(program(tmp_path / name, f"cat {tmp_path / name / 'answer'}")))
    report = found(model, *QUICK, "-p", "0", "--against", peers[0], "--against", peers[1])
    (row,) = report["results"]
    assert list(row["peers"]) == peers
    assert row["best_peer"] == peers[1]
    _, out, err = run(model, *QUICK, "-p", "0", "--against", peers[0], "--against", peers[1])
    assert out.split("\t")[7] == "0.75"
    assert "the best of them in each row" in err


def test_random_weights_need_no_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QWICK_MODELS", str(tmp_path))
    monkeypatch.setattr(random_weights, "size_config", lambda _: small_shape())
    report = found("--random-weights", "qwen3.5:0.8b", "--format", "q4_0", *QUICK)
    assert Path(report["model"]["path"]).name == "qwen3.5-0.8b-Q4_0-1.gguf"


def test_a_plot_is_drawn_beside_the_table(model: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    code, out, _ = run(model, *QUICK, "--plot", str(tmp_path / "x.png"))
    assert code == 0
    assert len(out.splitlines()) == 2
    assert (tmp_path / "x.png").read_bytes()[1:4] == b"PNG"


def test_what_is_wrong_with_a_plot_costs_no_figures(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(plot, "check_plot", lambda path: None)
    for form in ((), ("--json",)):
        code, out, err = run(model, *QUICK, *form, "--plot", str(tmp_path / "no" / "x.png"))
        assert code == 2
        assert "cannot be written" in err
        assert "tg2" in out


def test_programs_are_looked_for_before_weights_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QWICK_MODELS", str(tmp_path))
    monkeypatch.setattr(random_weights, "size_config", lambda _: small_shape())
    code, _, err = run("--random-weights", "qwen3.5:0.8b", "--against", "/nowhere")
    assert code == 2
    assert "is no program" in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-p", "x"], "-p is 'x'; give whole numbers"),
        (["-p", "1,,2"], "give whole numbers"),
        (["-n", "-4"], "give whole numbers"),
        (["-p", "0", "-n", "0"], "leave nothing to measure"),
        (["--batch", "0"], "--batch needs whole numbers from 1"),
        (["--threads", "0"], "--threads needs whole numbers from 1"),
        (["--kv-format", "q8"], "f16, bf16, q8_0, f32"),
        (["--format", "Q8_0"], "--random-weights"),
        (["--random-weights", "qwen3.5:2b"], "exclude each other"),
        (["--against", "/bin/sh", "--batch", "1,2"], "no llama-batched-bench beside"),
        (["--against", "/nowhere"], "is no program"),
        (["--against", "/a", "--against", "/b", "--against", "/b"], "names '/b' twice"),
        (["--plot", "/nowhere/x.png"], "cannot be written"),
        (["--plot", "x.svg"], "does not end in .png"),
        (["-r", "0"], "Invalid value for '-r' / '--repeats'"),
    ],
)
def test_mistakes_cost_one_line(model: str, arguments: list[str], message: str) -> None:
    code, out, err = run(model, *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


def test_a_context_that_is_too_long_does_not_fit(model: str) -> None:
    code, out, err = run(model, *QUICK, "--depth", "9000")
    assert (code, out) == (5, "")
    assert "9,004" in err
