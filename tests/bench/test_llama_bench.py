"""The peer's answers are read as it gives them (a recorded one), and whatever it does wrong is one clear error."""

import json
from pathlib import Path

import pytest

from qwick.bench.cases import Case, plan_cases
from qwick.bench.llama_bench import LlamaBench, parse_batched, parse_output
from qwick.bench.peers import open_peers
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


# llama-batched-bench of the same build, -npp 1,16 -ntg 1,8 -npl 2,8 -t 2: what is not read left out.
BATCHED = """
{"n_threads": 2, "pp": 16, "tg": 1, "pl": 2, "t_pp": 0.658050, "speed_pp": 30.5, "speed_tg": 5.5}
{"n_threads": 2, "pp": 16, "tg": 1, "pl": 8, "t_pp": 4.112691, "speed_pp": 31.12, "speed_tg": 5.0}
{"n_threads": 2, "pp": 1, "tg": 8, "pl": 2, "t_pp": 0.000000, "speed_pp": 1.0, "speed_tg": 6.89}
{"n_threads": 2, "pp": 1, "tg": 8, "pl": 8, "t_pp": 0.000000, "speed_pp": 1.0, "speed_tg": 7.79}

llama_perf_context_print: load time = 1.0 ms
"""
BATCHED_ARGUMENTS = (
    "-npp 1 -ntg 8 -npl 2,8 -c 2120 -b 2048 -ub 512 -t 2 -tb 2 -ctk f16 -ctv f16 --output-format jsonl",
    "-npp 16 -ntg 1 -npl 2,8 -c 2184 -b 2048 -ub 512 -t 2 -tb 2 -ctk f16 -ctv f16 --output-format jsonl",
)


def program(folder: Path, text: str, name: str = "llama-bench") -> Path:
    path = folder / name
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
    rates = peer.measure(CASES)
    assert [rates[case] for case in CASES] == RATES
    (line,) = log.read_text().splitlines()
    wanted = "-p 16,32 -n 8 -d 32 -t 1 -r 1 -ctk f32 -ctv f32 -o json"
    assert line == f"-m {tmp_path / 'x.gguf'} {wanted}"
    assert peer.name == "llama-bench 0c1e570"


def test_several_sequences_are_measured_by_the_program_beside_it(tmp_path):
    log, answer = tmp_path / "log", tmp_path / "answer"
    answer.write_text(BATCHED)
    alone = program(tmp_path, "exit 1")
    program(tmp_path, f'echo "$@" >> {log}; cat {answer}', "llama-batched-bench")
    peer = LlamaBench(alone, tmp_path / "x.gguf", batched=True)
    cases = plan_cases([16], [8], [0], [2, 8], [2])
    rates = peer.measure(cases)
    assert [rates[case] for case in cases] == [30.5, 6.89, 31.12, 7.79]
    answers, prompts = (f"-m {tmp_path / 'x.gguf'} {line}" for line in BATCHED_ARGUMENTS)
    assert log.read_text().splitlines() == [answers, prompts]


def test_a_prompt_of_several_sequences_at_a_depth_is_left_out(tmp_path):
    """llama-batched-bench reads prompts into empty contexts only."""
    answer = tmp_path / "answer"
    answer.write_text(BATCHED.replace('"pp": 1,', '"pp": 300,'))
    program(tmp_path, f"cat {answer}", "llama-batched-bench")
    peer = LlamaBench(program(tmp_path, "exit 1"), tmp_path / "x.gguf", batched=True)
    prompt, decode = plan_cases([16], [8], [300], [8], [2])
    assert peer.measure([prompt, decode]) == {decode: 7.79}
    assert peer.measure([prompt]) == {}


@pytest.mark.parametrize(
    "line",
    [
        '{"pl": 8, "pp": 1, "tg": 8, "n_threads": 2, "speed_tg": -nan}',
        '{"pl": 8, "pp": 1, "tg": 8, "n_threads": 2, "speed_tg": Infinity}',
        '{"pl": 8, "pp": 1, "tg": 8, "n_threads": 1, "speed_tg": 7.0}',
        '{"pl": 4, "pp": 1, "tg": 8, "n_threads": 2, "speed_tg": 7.0}',
        "",
    ],
)
def test_no_rate_of_several_sequences_is_an_error(line):
    (case,) = plan_cases([0], [8], [0], [8], [2])
    with pytest.raises(UsageError, match="llama-bench printed no"):
        parse_batched(f"some words\n{line}\n", [case])


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
        open_peers([str(tmp_path / "nothing")], model)
    path = str(program(tmp_path, "true"))
    with pytest.raises(UsageError, match="qwick convert"):
        open_peers([path], tmp_path)
    with pytest.raises(UsageError, match="twice"):
        open_peers([path, path], model)
    with pytest.raises(UsageError, match=r"no llama-batched-bench.*build\.sh"):
        open_peers([path], model, batched=True)


def test_a_folder_means_the_program_in_it_and_each_peer_keeps_its_name(tmp_path):
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
        program(folder, "true")
    peers = open_peers([str(folder) for folder in folders], tmp_path / "x.gguf")
    assert list(peers) == [str(folder) for folder in folders]
    assert all(isinstance(peer, LlamaBench) for peer in peers.values())


def test_the_recorded_answer_is_whole():
    assert len(json.loads(RECORDED)) == len(CASES)
