"""Cases and their batches: as many tokens as asked, at the depth asked, each sequence on its own pages and slot."""

import numpy as np
import pytest

from qwick.bench.cases import Case, StepCost, plan_cases
from qwick.bench.sequences import STEP_TOKENS, Sequences
from qwick.describe import describe
from qwick.errors import UsageError
from qwick.model.model import open_model
from qwick.ops.contract import Role
from tests.bench.random_model import write_small_random

CASES = [
    Case(role, num_tokens, depth, batch)
    for role, num_tokens in ((Role.PROMPT, 700), (Role.PROMPT, 5), (Role.DECODE, 3))
    for depth in (0, 130)
    for batch in (1, 3)
]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write_small_random(tmp_path_factory.mktemp("bench") / "small.gguf")


@pytest.fixture(scope="module")
def model(path):
    return open_model(path, threads=1)


@pytest.fixture(scope="module")
def sequences(model):
    return Sequences(model, CASES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_each_sequence_goes_from_its_depth_to_its_end(sequences, case):
    ends = dict.fromkeys(range(case.batch), case.depth)
    for batch in sequences.steps(case):
        assert batch.num_tokens <= STEP_TOKENS
        assert batch.num_tokens == sum(run.num_tokens for run in batch.runs)
        for run in batch.runs:
            assert run.role is case.role
            assert run.context_len == ends[run.slot]
            ends[run.slot] += run.num_tokens
    assert ends == dict.fromkeys(range(case.batch), case.depth + case.num_tokens)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_pages_are_long_enough_and_nobody_elses(sequences, case):
    owners = {}
    for batch in sequences.steps(case):
        for run in batch.runs:
            assert len(run.pages) * 64 >= run.context_len + run.num_tokens
            for page in run.pages:
                assert owners.setdefault(int(page), run.slot) == run.slot


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_logits_are_wanted_where_an_engine_wants_them(sequences, case):
    wanted = [len(batch.wanted_rows) for batch in sequences.steps(case)]
    assert sum(wanted) == (case.batch if case.is_prompt else case.batch * case.num_tokens)
    assert all(batch.top_k == 1 for batch in sequences.steps(case))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_step_runs_and_is_finite(model, sequences, case):
    for batch in sequences.steps(case):
        assert np.isfinite(model.forward(batch).hidden).all()


def test_the_whole_cache_is_filled(model, monkeypatch):
    copied = []
    monkeypatch.setattr(model.backend, "copy_page", lambda source, target: copied.append((source, target)))
    Sequences(model, [Case(Role.DECODE, 1, depth=640, batch=2)])
    assert copied == [(0, page) for page in range(1, 2 * 11)]


def test_what_a_step_reads_is_what_the_model_says(path, model):
    cost = StepCost.of_model(model)
    told = describe(path).token_cost(0)
    assert cost.weight_bytes == pytest.approx(told.weight_bytes, rel=1e-3)
    assert cost.state_bytes == told.state_bytes
    assert cost.token_kv_bytes == describe(path).token_cost(1).kv_bytes
    alone, four = Case(Role.DECODE, 1, depth=99), Case(Role.DECODE, 1, depth=99, batch=4)
    assert cost.decode_bytes(alone) == cost.weight_bytes + cost.state_bytes + 100 * cost.token_kv_bytes
    assert cost.decode_bytes(four) - cost.weight_bytes == 4 * (cost.decode_bytes(alone) - cost.weight_bytes)


def test_names_are_llama_benchs():
    cases = plan_cases([512], [64], [0, 4096], [1, 8], [2])
    assert [case.name for case in cases] == [
        *("pp512", "tg64", "pp512 b8", "tg64 b8"),
        *("pp512 @ d4096", "tg64 @ d4096", "pp512 @ d4096 b8", "tg64 @ d4096 b8"),
    ]
    assert [case.name for case in plan_cases([0], [7, 7], [0], [1], [1])] == ["tg7"]


@pytest.mark.parametrize(
    "lists",
    [
        ([0], [0], [0], [1], [1]),
        ([-1], [1], [0], [1], [1]),
        ([1], [1], [-1], [1], [1]),
        ([1], [1], [0], [0], [1]),
        ([1], [1], [0], [1], [0]),
        ([1], [1], [0], [1], []),
    ],
)
def test_plans_without_sense_are_usage_errors(lists):
    with pytest.raises(UsageError):
        plan_cases(*lists)
