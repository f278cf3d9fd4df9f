"""Programs refuse what they cannot run, at recording and for each batch, and never crash."""

import contextlib
import os
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwick import _kernels
from qwick.errors import CapacityError, KernelError
from qwick.formats import F32, Q8_0
from qwick.ops.contract import Batch, Commit, CommitBatch, Outputs, Role, Run
from qwick.ops.native import NativeBackend
from tests.kernels.plain_cache import ATTENTION, CACHE, DELTA

WIDTH, VOCAB, MAX_TOKENS = 64, 50, 80


class Weights:
    """Everything one delta and one attention layer need."""

    def __init__(self, backend):
        rng = np.random.default_rng(0)

        def matrix(n, k, format=Q8_0):
            rows = (rng.standard_normal((n, k)) * k**-0.5).astype(np.float32)
            return backend.add_matrix(f"m{n}x{k}", (n, k), format, [(0, rows)])

        def vector(*shape):
            return backend.add_vector(f"v{shape}", rng.uniform(-1, 0, shape).astype(np.float32))

        self.table, self.norm = matrix(VOCAB, WIDTH, F32), vector(WIDTH)
        self.qkv, self.a, self.b = (matrix(n, WIDTH) for n in (DELTA.channels, 4, 4))
        self.conv, self.decay, self.dt = vector(DELTA.channels, 4), vector(4), vector(4)
        self.out = matrix(WIDTH, 192)
        self.query, self.key, self.value = (matrix(n, WIDTH) for n in (256, 64, 64))
        self.head_norm, self.o = vector(32), matrix(WIDTH, 128)


def layers(w):
    def network(ops, step):
        x = ops.rms_norm(ops.embed(w.table, step), w.norm, 1e-6)
        qkv, a, b = ops.linear(x, [w.qkv, w.a, w.b])
        out = ops.gated_delta(ops.causal_conv(qkv, w.conv, 0, step), a, b, w.decay, w.dt, 0, DELTA, step)
        x = ops.linear_add(out, w.out, x)
        q, k, v = ops.linear(x, [w.query, w.key, w.value])
        query = ops.norm_rope(q, w.head_norm, 1e-6, ATTENTION, step, gated=True)
        key = ops.norm_rope(k, w.head_norm, 1e-6, ATTENTION, step, gated=False)
        x = ops.linear_add(ops.attention(query, key, v, q, 0, ATTENTION, step), w.o, x)
        return Outputs(hidden=x, head=ops.head(x, w.table, step))

    return network


def commit_network(w):
    def network(ops, step):
        ops.replay(w.conv, w.decay, w.dt, 0, DELTA, step)
        return Outputs()

    return network


class Opened:
    def __init__(self):
        self.backend = NativeBackend(2)
        self.weights = Weights(self.backend)
        self.backend.open_cache(CACHE)
        self.forward = self.backend.compile(layers(self.weights), max_tokens=MAX_TOKENS)
        self.commit = self.backend.compile(commit_network(self.weights), max_tokens=8)


@pytest.fixture(scope="module")
def opened():
    return Opened()


def batch_of(*runs, wanted=(), top_k=0, **changes):
    tokens = sum(run.num_tokens for run in runs)
    angles = np.zeros((tokens, 8), np.float32)
    ids = np.arange(tokens, dtype=np.int32) % VOCAB
    return replace(Batch(ids, angles, angles, tuple(runs), np.array(wanted, np.int32), top_k), **changes)


GOOD = Run(3, Role.PROMPT, 0, 0, [0])
ANGLES = np.zeros((3, 8), np.float32)
MALFORMED = {
    "no tokens": batch_of(),
    "a run without tokens": batch_of(GOOD, replace(GOOD, num_tokens=0, slot=1, pages=[1])),
    "negative length": replace(batch_of(GOOD), runs=(replace(GOOD, num_tokens=-3),)),
    "more tokens than the runs": replace(batch_of(GOOD), runs=(replace(GOOD, num_tokens=2),)),
    "fewer tokens than the runs": replace(batch_of(GOOD), runs=(replace(GOOD, num_tokens=4),)),
    "token id": batch_of(GOOD, token_ids=np.array([0, VOCAB, 1], np.int32)),
    "negative token id": batch_of(GOOD, token_ids=np.array([0, -1, 1], np.int32)),
    "slot": batch_of(replace(GOOD, slot=4)),
    "negative slot": batch_of(replace(GOOD, slot=-1)),
    "page": batch_of(replace(GOOD, pages=[6])),
    "negative page": batch_of(replace(GOOD, pages=[-1])),
    "too few pages": batch_of(replace(GOOD, context_len=62)),
    "no pages": batch_of(replace(GOOD, pages=[])),
    "context beyond 32 bits": batch_of(replace(GOOD, context_len=2**40)),
    "page beyond 32 bits": batch_of(replace(GOOD, pages=[2**40])),
    "negative context": batch_of(replace(GOOD, context_len=-1)),
    "huge context": batch_of(replace(GOOD, context_len=2**31 - 1)),
    "a slot twice": batch_of(GOOD, replace(GOOD, pages=[1])),
    "snapshot slot": batch_of(replace(GOOD, snapshots=((1, 4),))),
    "snapshot into itself": batch_of(replace(GOOD, snapshots=((1, 0),))),
    "snapshot before the run": batch_of(replace(GOOD, snapshots=((0, 1),))),
    "snapshot behind the run": batch_of(replace(GOOD, snapshots=((4, 1),))),
    "snapshot twice": batch_of(replace(GOOD, snapshots=((1, 1), (2, 1)))),
    "snapshot into another run's slot": batch_of(replace(GOOD, snapshots=((1, 1),)), replace(GOOD, slot=1, pages=[1])),
    "a draft of nine": batch_of(replace(GOOD, num_tokens=9, commit=False)),
    "wanted row": batch_of(GOOD, wanted=[3]),
    "negative wanted row": batch_of(GOOD, wanted=[-1]),
    "descending wanted rows": batch_of(GOOD, wanted=[1, 0]),
    "a wanted row twice": batch_of(GOOD, wanted=[1, 1]),
    "top_k": batch_of(GOOD, wanted=[1], top_k=VOCAB + 1),
    "negative top_k": batch_of(GOOD, wanted=[1], top_k=-1),
    "rope rows": batch_of(GOOD, rope_cos=ANGLES[:2]),
    "rope width": batch_of(GOOD, rope_cos=ANGLES[:, :4], rope_sin=ANGLES[:, :4]),
    "hidden states": batch_of(GOOD, hidden=np.zeros((3, WIDTH), np.float32)),
    "commits": CommitBatch((Commit(0, 1, 0),)),
}


@pytest.mark.parametrize("what", MALFORMED)
def test_a_malformed_batch_is_refused(opened, what):
    with pytest.raises(KernelError):
        opened.forward.run(MALFORMED[what])
    assert np.isfinite(opened.forward.run(batch_of(GOOD, wanted=[2])).logits).all()


@pytest.mark.parametrize(
    "commit",
    [Commit(4, 1, 0), Commit(-1, 1, 0), Commit(0, 9, 0), Commit(0, -1, 0), Commit(2**40, 1, 0), Commit(0, 1, -1)],
)
def test_a_malformed_commit_is_refused(opened, commit):
    with pytest.raises(KernelError):
        opened.commit.run(CommitBatch((commit,)))
    with pytest.raises(KernelError, match="twice"):
        opened.commit.run(CommitBatch((Commit(0, 1, 0), Commit(0, 1, 0))))
    with pytest.raises(KernelError, match="commits"):
        opened.commit.run(batch_of(GOOD))


def test_more_rows_than_compiled_for_is_a_capacity_error(opened):
    with pytest.raises(CapacityError, match="81 tokens"):
        opened.forward.run(batch_of(Run(81, Role.PROMPT, 0, 0, [0, 1])))


@settings(max_examples=200)
@given(st.data())
def test_random_numbers_in_a_batch_never_crash(data):
    number = st.one_of(st.integers(-2, 9), st.integers(-(2**31), 2**31 - 1))
    runs = tuple(
        Run(
            data.draw(number),
            data.draw(st.sampled_from(Role)),
            data.draw(number),
            data.draw(number),
            data.draw(st.lists(number, max_size=3)),
            data.draw(st.booleans()),
            tuple(data.draw(st.lists(st.tuples(number, number), max_size=2))),
        )
        for _ in range(data.draw(st.integers(0, 3)))
    )
    tokens = data.draw(st.integers(0, 12))
    angles = np.zeros((tokens, 8), np.float32)
    ids = np.array(data.draw(st.lists(number, min_size=tokens, max_size=tokens)), np.int32)
    wanted = np.array(data.draw(st.lists(number, max_size=3)), np.int32)
    with contextlib.suppress(KernelError, CapacityError):
        hostile().forward.run(Batch(ids, angles, angles, runs, wanted, data.draw(number)))


_HOSTILE = []


def hostile():
    if not _HOSTILE:
        _HOSTILE.append(Opened())
    return _HOSTILE[0]


def test_results_keep_their_memory_when_a_later_run_needs_more(opened):
    first = opened.forward.run(batch_of(GOOD, wanted=[2])).logits
    opened.forward.run(batch_of(Run(70, Role.PROMPT, 0, 1, [1, 2]), wanted=range(70)))
    opened.forward.run(batch_of(Run(70, Role.PROMPT, 0, 1, [1, 2]), wanted=range(70), top_k=50))
    assert first.shape == (1, VOCAB)
    assert np.isfinite(first).all()


def test_results_outlive_their_program():
    other = Opened()
    result = other.forward.run(batch_of(GOOD, wanted=[0, 2], top_k=3, logsumexp=True))
    del other
    assert result.hidden.shape == (3, WIDTH)
    assert result.top_ids.shape == result.top_logits.shape == (2, 3)
    assert np.isfinite(result.hidden).all()
    assert np.isfinite(result.logsumexp).all()


def test_no_wanted_rows_give_empty_logits(opened):
    assert opened.forward.run(batch_of(GOOD)).logits.shape == (0, VOCAB)
    assert opened.forward.run(batch_of(GOOD, top_k=2)).top_ids.shape == (0, 2)


def decode_steps(program, lengths):
    """Allocations of one-token steps of two sequences, one after another; one draft among them."""
    program.run(batch_of(GOOD, replace(GOOD, slot=1, pages=[1]), wanted=[2, 5], top_k=3))
    found = [program.num_allocations]
    for n in lengths:
        runs = [Run(1, Role.DECODE, n, 0, [0]), Run(4, Role.DECODE, n, 1, [1], commit=False)]
        program.run(batch_of(*runs, wanted=[0, 4], top_k=3))
        found.append(program.num_allocations)
    return found


def test_a_step_as_large_as_one_before_allocates_nothing():
    other = Opened()
    counts = decode_steps(other.forward, range(3, 60))
    assert counts[0] > 0
    assert not any(counts[2:])
    other.commit.run(CommitBatch((Commit(1, 3, 60),)))
    other.commit.run(CommitBatch((Commit(1, 1, 60),)))
    assert other.commit.num_allocations == 0


@pytest.mark.skipif("QWICK_SANITIZED" in os.environ, reason="the sanitizer brings an operator new of its own")
def test_memory_of_the_heap_is_counted_too():
    before = _kernels.num_allocations()
    _kernels.leaves.quantize_i8("scalar", np.ones(32, np.float32))
    assert _kernels.num_allocations() > before


def test_one_thread_has_no_parallel_sections(opened):
    def sections(threads):
        opened.backend.set_threads(threads, threads)
        opened.forward.run(batch_of(GOOD, wanted=[2]))
        return opened.forward.num_sections

    assert sections(2) > 0
    assert sections(1) == 0
    assert sections(2) > 0


def test_buffers_take_turns(opened):
    deep = opened.backend.compile(deep_network(opened.weights, 40), max_tokens=MAX_TOKENS)
    shallow = opened.backend.compile(deep_network(opened.weights, 3), max_tokens=MAX_TOKENS)
    assert deep.buffer_bytes == shallow.buffer_bytes


def deep_network(w, depth):
    def network(ops, step):
        x = ops.embed(w.table, step)
        for _ in range(depth):
            x = ops.rms_norm(x, w.norm, 1e-6)
        return Outputs(hidden=x)

    return network


def test_a_program_without_a_cache_says_so():
    backend = NativeBackend(1)
    program = backend.compile(layers(Weights(backend)), max_tokens=8)
    with pytest.raises(KernelError, match="cache"):
        program.run(batch_of(GOOD))
    backend.open_cache(replace(CACHE, attention=replace(ATTENTION, num_q=2)))
    with pytest.raises(KernelError, match="another shape"):
        program.run(batch_of(GOOD))


BAD_NETWORKS = {
    "narrow weight": lambda ops, w: ops.linear(ops.embed(w.table, None), [w.out]),
    "no weight": lambda ops, w: ops.linear(ops.embed(w.table, None), []),
    "a foreign value": lambda ops, w: ops.rms_norm(99, w.norm, 1e-6),
    "norm of another width": lambda ops, w: ops.rms_norm(ops.embed(w.table, None), w.head_norm, 1e-6),
    "a vector as matrix": lambda ops, w: ops.embed(w.norm, None),
    "a matrix as vector": lambda ops, w: ops.rms_norm(ops.embed(w.table, None), w.qkv, 1e-6),
    "hidden states nobody reads": lambda ops, w: ops.hidden(None),
    "hidden states of unknown width": lambda ops, w: ops.concat(ops.hidden(None), ops.embed(w.table, None)),
    "two heads": lambda ops, w: [ops.head(x, w.table, None) for x in [ops.embed(w.table, None)] * 2],
    "heads that do not divide": lambda ops, w: ops.gated_delta(
        ops.embed(w.table, None), 0, 0, w.decay, w.dt, 0, replace(DELTA, num_k=3), None
    ),
    "odd rotary dims": lambda ops, w: ops.norm_rope(
        ops.embed(w.table, None), w.head_norm, 1e-6, replace(ATTENTION, rotary_dim=7), None, gated=False
    ),
    "a negative layer": lambda ops, w: ops.replay(w.conv, w.decay, w.dt, -1, DELTA, None),
    "replay beside other ops": lambda ops, w: (
        ops.embed(w.table, None),
        ops.replay(w.conv, w.decay, w.dt, 0, DELTA, None),
    ),
}


@pytest.mark.parametrize("what", BAD_NETWORKS)
def test_a_network_that_does_not_fit_is_refused_when_recorded(opened, what):
    def network(ops, step):
        BAD_NETWORKS[what](ops, opened.weights)
        return Outputs()

    with pytest.raises(KernelError):
        opened.backend.compile(network, max_tokens=4)


@pytest.mark.parametrize("max_tokens", [0, -1, 1 << 40])
def test_max_tokens_has_limits(opened, max_tokens):
    with pytest.raises(KernelError, match="max_tokens"):
        opened.backend.compile(layers(opened.weights), max_tokens=max_tokens)


@pytest.mark.parametrize("indices", [(4, 0), (0, 4), (-1, 0)])
def test_copies_check_their_indices(opened, indices):
    with pytest.raises(KernelError, match="slot"):
        opened.backend.copy_slot(*indices)
    with pytest.raises(KernelError, match="page"):
        opened.backend.copy_page(indices[0] * 2, indices[1] * 2)
