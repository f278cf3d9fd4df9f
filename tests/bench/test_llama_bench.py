"""The peer's answers are read as it gives them (a recorded one), and whatever it does wrong is one clear error."""

import json
from pathlib import Path

import pytest

from qwick.bench.cases import Case, plan_cases
from qwick.bench.llama_bench import LlamaBench, open_peer, parse_output
from qwick.errors import UsageError
from qwick.ops.contract import Role

# llama-bench 0c1e570: -m every_type.gguf -p 16,32 -n 8 -d 32 -t 1 -r 2 -o json, keys that are not read left out.
RECORDED = """[
  {"build_commit": "0c1e570", "build_number": 1, "model_type": "qwen35 ?B Q4_K - Medium", "n_threads": 1,
   "type_k": "f16", "n_prompt": 16, "n_gen": 0, "n_depth": 32, "avg_ns": 5175600, "avg_ts": 7667.140579,
   "stddev_ts": 8376.470154, "samples_ns": [ 1177319, 9173882 ], "samples_ts": [ 13590.2, 1744.08 ]},
  {"build_commit": "0c1e570", "build_number": 1, "model_type": "qwen35 ?B Q4_K - Medium", "n_threads": 1,
   "type_k": "f16", "n_prompt": 32, "n_gen": 0, "n_depth": 32, "avg_ns": 5902680, "avg_ts": 10464.716714,
   "stddev_ts": 10274.072234, "samples_ns": [ 1804893, 10000467 ], "samples_ts": [ 17729.6, 3199.85 ]},
  {"build_commit": "0c1e570", "build_number": 1, "model_type": "qwen35 ?B Q4_K - Medium", "n_threads": 1,
   "type_k": "f16", "n_prompt": 0, "n_gen": 8, "n_depth": 32, "avg_ns": 5350482, "avg_ts": 4492.574447,
   "stddev_ts": 5189.597796, "samples_ns": [ 9720834, 980131 ], "samples_ts": [ 822.975, 8162.17 ]}
]"""
CASES = plan_cases([16, 32], [8], [32], [1], [1])
RATES = [7667.140579, 10464.716714, 4492.574447]


def program(folder: Path, text: str) -> Path:
    path = folder / "llama-bench"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_a_recorded_answer_is_read():
    build, rates = parse_output(RECORDED, CASES)
    assert build == "0c1e570"
    assert [rates[case] for case in CASES] == RATES


@pytest.mark.parametrize(
    "case",
    [
        Case(Role.PROMPT, 8, 32),
        Case(Role.DECODE, 16, 32),
        Case(Role.PROMPT, 16, 0),
        Case(Role.PROMPT, 16, 32, threads=2),
    ],
)
def test_what_it_did_not_measure_is_missed(case):
    with pytest.raises(UsageError, match="no rate of"):
        parse_output(RECORDED, [case])


@pytest.mark.parametrize("output", ["", "{}", "[1]", "null", "[{", '["x"]'])
def test_what_is_no_list_of_results_is_refused(output):
    with pytest.raises(UsageError, match="llama-bench"):
        parse_output(output, CASES)


@pytest.mark.parametrize("rate", ["null", "0", "-1", "true", '"fast"', "NaN", "[]"])
def test_what_is_no_rate_is_refused(rate):
    with pytest.raises(UsageError, match="no rate of pp16"):
        parse_output(RECORDED.replace("7667.140579", rate), CASES)


def test_it_is_asked_for_the_same_and_runs_once_for_all(tmp_path):
    log, answer = tmp_path / "log", tmp_path / "answer"
    answer.write_text(RECORDED)
    peer = LlamaBench(program(tmp_path, f'echo "$@" >> {log}; cat {answer}'), tmp_path / "x.gguf", "f32")
    together = Case(Role.DECODE, 8, 32, batch=8)
    rates = peer.measure([*CASES, together])
    assert [rates[case] for case in CASES] == RATES
    assert together not in rates
    assert peer.measure([together]) == {}
    (line,) = log.read_text().splitlines()
    wanted = "-p 16,32 -n 8 -d 32 -t 1 -r 1 -ctk f32 -ctv f32 -o json"
    assert line == f"-m {tmp_path / 'x.gguf'} {wanted}"
    assert peer.name == "llama-bench 0c1e570"


def test_what_it_complains_of_is_told(tmp_path):
    peer = LlamaBench(program(tmp_path, "echo first >&2; echo no such model >&2; exit 3"), tmp_path / "x.gguf")
    with pytest.raises(UsageError, match="failed with 3, saying 'no such model'"):
        peer.measure(CASES)


def test_a_program_that_is_none_is_a_usage_error(tmp_path):
    path = tmp_path / "llama-bench"
    path.write_bytes(b"\x7fELF nonsense")
    path.chmod(0o755)
    with pytest.raises(UsageError, match="cannot be run"):
        LlamaBench(path, tmp_path / "x.gguf").measure(CASES)


def test_opening_refuses_what_cannot_work(tmp_path):
    model = tmp_path / "x.gguf"
    with pytest.raises(UsageError, match=r"is no program.*build\.sh"):
        open_peer(str(tmp_path / "nothing"), model)
    with pytest.raises(UsageError, match=r"offers no benchmark.*build\.sh"):
        open_peer("xllamacpp", model)
    with pytest.raises(UsageError, match="qwick convert"):
        open_peer(str(program(tmp_path, "true")), tmp_path)
    assert open_peer(str(tmp_path), model).arguments(CASES)[:2] == ["-m", str(model)]  # the folder it lies in


def test_the_recorded_answer_is_whole():
    assert len(json.loads(RECORDED)) == len(CASES)
