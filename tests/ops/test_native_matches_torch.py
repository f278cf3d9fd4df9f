"""Each native op against its torch definition: f64 is the truth, torch's own f32 the yardstick."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from qwick.formats import BF16, F32, Q8_0
from qwick.ops.contract import KV_FORMATS, Commit, CommitBatch, Role
from qwick.ops.native import NativeBackend
from qwick.ops.torch import TorchBackend
from tests.instruction_sets import ISAS
from tests.ops import small_networks as small
from tests.ops.small_networks import Piece, make_batch, open_network

torch.set_num_threads(1)
DECODE = Role.DECODE

# Runs of 1 to 130 tokens; decode rows between prompt rows; snapshots inside runs; context from a step before.
STEPS = [
    [Piece(0, 0, 130, snapshots=((7, 6), (3, 7), (130, 8))), Piece(1, 0, 1, DECODE), Piece(2, 0, 65), Piece(3, 0, 2)],
    [Piece(1, 1, 1, DECODE), Piece(0, 130, 3, DECODE, commit=False), Piece(2, 65, 17), Piece(3, 2, 1, DECODE)],
    [Piece(7, 3, 9, sequence=0), Piece(2, 82, 1, DECODE), Piece(3, 3, 63)],
]


def backends(isa: str) -> tuple[Any, Any, Any]:
    return NativeBackend(2, 2, isa), TorchBackend(torch.float64), TorchBackend(torch.float32)


def error(actual: np.ndarray, truth: np.ndarray) -> float:
    return float(np.linalg.norm(actual - truth) / np.linalg.norm(truth))


def check(isa: str, define: Callable[[Any], Any], steps: Any, slack: float = 0.0, kv_format: str = "f32") -> None:
    programs = [open_network(define, backend, kv_format) for backend in backends(isa)]
    for pieces in steps:
        native, truth, single = (program(pieces) for program in programs)
        assert error(native, truth) <= 20 * error(single, truth) + 1e-7 + slack


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("define", [small.rms_norm, small.gated_rms_norm, small.causal_conv, small.linears(F32)])
def test_stateless_ops_and_the_convolution(isa, define):
    check(isa, define, STEPS)


@pytest.mark.parametrize("isa", ISAS)
def test_delta_layer(isa):
    check(isa, small.delta_layer(F32), STEPS)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("kv_format", KV_FORMATS)
def test_attention_layer(isa, kv_format):
    # A key or value that falls to the other side of a rounding boundary moves by a step: 2^-11 of it in f16, 2^-8 in
    # bf16, 1/127 of its group's largest in q8_0, whose queries and weights are rounded to int16 besides.
    slack = {"f32": 0.0, "f16": 2e-5, "bf16": 1.6e-4, "q8_0": 5e-5}[kv_format]
    check(isa, small.attention_layer(F32), STEPS, slack=slack, kv_format=kv_format)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("kv_format", KV_FORMATS)
@pytest.mark.parametrize("length", [1, 3, 20])
def test_attention_over_a_deep_context(isa, kv_format, length):
    """40,000 positions (more splits than tasks), of which each page is one of four that hold something."""
    results: list[np.ndarray] = []
    for backend in backends(isa)[:2]:
        program = open_network(small.attention_layer(F32), backend, kv_format)
        program([Piece(0, 0, 256)])
        batch = small.make_batch([Piece(0, 256, length, Role.DECODE)])
        pages = np.resize(np.asarray(batch.runs[0].pages), 626)
        deep = replace(batch.runs[0], context_len=40_000, pages=pages)
        results.append(program.program.run(replace(batch, runs=(deep,))).hidden.copy())
    assert error(*results) < {"f32": 1e-6, "f16": 2e-5, "bf16": 1.6e-4, "q8_0": 5e-5}[kv_format]


@pytest.mark.parametrize("isa", ISAS)
def test_concat_reads_hidden_states_of_the_batch(isa):
    hidden = np.random.default_rng(0).standard_normal((10, small.WIDTH)).astype(np.float32)
    results = [open_network(small.concat, b)([Piece(0, 0, 10)], hidden=hidden) for b in backends(isa)]
    assert error(results[0], results[1]) < 1e-6


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("format", [BF16, Q8_0])
@pytest.mark.parametrize("role", [Role.DECODE, Role.PROMPT])
def test_rounded_families_stay_within_their_rounding(isa, format, role):
    native, truth, _ = (open_network(small.linears(format), backend) for backend in backends(isa))
    got, want = (program([Piece(0, 0, 33, role), Piece(1, 0, 2, role)]) for program in (native, truth))
    # A step d = amax / top moves an operand by d / sqrt(12); amax is at most 4 sigma, of 32 or 512. Prompt rows round
    # both operands, decode rows of blocks the activations. Twice for the chained product, doubled again.
    of_int16, of_int8 = 2**0.5 * 4 / 2047 / 12**0.5, 4 / 127 / 12**0.5
    one = of_int16 if role == Role.PROMPT else of_int8 if format == Q8_0 else 0.0
    assert error(got, want) <= 2 * 2 * one + 1e-6
    if role == Role.DECODE and format == BF16:
        assert error(got, want) < 1e-6


@pytest.mark.parametrize("isa", ISAS)
def test_attention_over_several_splits_of_512_keys(isa, monkeypatch):
    monkeypatch.setattr(small, "PAGES_EACH", 24)
    steps = [[Piece(0, 0, 400)], [Piece(0, 400, 300)], [Piece(0, 700, 340)], [Piece(0, 1040, 1, DECODE)]]
    steps += [[Piece(0, 1041, 5, DECODE, commit=False), Piece(1, 0, 1, DECODE)]]
    if isa == "scalar":
        steps = [*steps[:2], [Piece(0, 700, 1, DECODE)]]
    check(isa, small.attention_layer(F32), steps)


@pytest.mark.parametrize("isa", ISAS)
def test_commit_replays_a_draft(isa):
    draft = [[Piece(0, 0, 20)], [Piece(0, 20, 8, DECODE, commit=False), Piece(1, 0, 5, DECODE, commit=False)]]
    outs = []
    for backend in backends(isa):
        program = open_network(small.delta_layer(F32), backend)
        commit = backend.compile(small.replay(backend), max_tokens=8)
        for pieces in draft:
            program(pieces)
        commit.run(CommitBatch((Commit(0, 6, 20), Commit(1, 2, 0))))
        outs.append(program([Piece(0, 26, 4), Piece(1, 2, 1, DECODE)]))
    assert error(outs[0], outs[1]) <= 20 * error(outs[2], outs[1]) + 1e-7


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("format", [F32, BF16, Q8_0])
def test_head_gives_all_logits_or_the_top_with_log_sum_exp(isa, format):
    native, truth, _ = (open_network(small.head(format), backend) for backend in backends(isa))
    pieces, wanted = [Piece(0, 0, 9), Piece(1, 0, 1, DECODE), Piece(2, 0, 4)], (0, 8, 9, 13)
    full = native.program.run(make_batch(pieces, wanted)).logits.copy()
    assert error(full, truth.program.run(make_batch(pieces, wanted)).logits) < (1e-6 if format == F32 else 0.03)
    for top_k in (1, 7, 3000, 5000):
        result = native.program.run(replace(make_batch(pieces, wanted, top_k), logsumexp=True))
        assert result.logits is None
        order = np.argsort(-full, axis=1, kind="stable")[:, :top_k]
        np.testing.assert_array_equal(result.top_ids, order)
        np.testing.assert_array_equal(result.top_logits, np.take_along_axis(full, order, 1))
        expected = np.log(np.exp(full.astype(np.float64)).sum(1))
        np.testing.assert_allclose(result.logsumexp, expected, rtol=0, atol=4e-6)


def test_equal_logits_come_in_the_order_of_their_ids():
    backend = NativeBackend(1)
    rows = np.ones((5000, 32), np.float32)
    rows[[17, 2047, 4099]] = 2
    table = backend.add_matrix("table", rows.shape, F32, [(0, rows)])
    backend.open_cache(small.cache_shape())

    def network(ops, step):
        x = ops.embed(table, step)
        return small.Outputs(head=ops.head(x, table, step))

    program = backend.compile(network, max_tokens=4)
    result = program.run(make_batch([Piece(0, 0, 1)], [0], 6))
    assert result.top_ids.tolist() == [[17, 2047, 4099, 0, 1, 2]]
    assert result.hidden is None
