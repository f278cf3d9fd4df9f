"""Networks of one or a few ops, small enough for the scalar kernels, and batches for them.

A network here is `define(backend) -> network`: its weights come from a seed, so that two backends get the same ones.
Rows of the embedding are the inputs; ops that keep state are there with odd sizes (a partial tile, three pieces).
"""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from qwick.formats import F32, Format
from qwick.ops.contract import AttentionHeads, Batch, CacheShape, DeltaHeads, Outputs, Role, Run

VOCAB, WIDTH, PAGES_EACH, NUM_SLOTS = 300, 96, 4, 12
ATTENTION = AttentionHeads(num_q=4, num_kv=2, head_dim=32, rotary_dim=16)
DELTA = DeltaHeads(num_k=2, num_v=4, k_dim=32, v_dim=48)  # v_dim: a full tile of 32 lanes and half of one
EPS = 1e-6
TAPS = 4


def cache_shape(kv_format: str = "f32", page_len: int = 64) -> CacheShape:
    return CacheShape(1, 1, ATTENTION, DELTA, TAPS, PAGES_EACH * NUM_SLOTS, NUM_SLOTS, page_len, kv_format)


def matrix(backend: Any, name: str, n: int, k: int, format: Format = F32) -> Any:
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    rows = (rng.standard_normal((n, k)) * k**-0.5).astype(np.float32)
    half = n // 2
    return backend.add_matrix(name, (n, k), format, [(0, rows[:half]), (half, rows[half:])])


def vector(backend: Any, name: str, *shape: int, low: float = 0.5, high: float = 1.5) -> Any:
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    return backend.add_vector(name, rng.uniform(low, high, shape).astype(np.float32))


def inputs(backend: Any, ops: Any, step: Any, width: int = WIDTH) -> Any:
    return ops.embed(matrix(backend, f"inputs{width}", VOCAB, width), step)


def rms_norm(backend: Any) -> Any:
    w = vector(backend, "norm", WIDTH)
    return lambda ops, step: Outputs(hidden=ops.rms_norm(inputs(backend, ops, step), w, EPS))


def gated_rms_norm(backend: Any) -> Any:
    w, gate = vector(backend, "norm", 32), matrix(backend, "gate", WIDTH, WIDTH)

    def network(ops: Any, step: Any) -> Any:
        x = inputs(backend, ops, step)
        return Outputs(hidden=ops.gated_rms_norm(x, ops.linear(x, [gate])[0], w, EPS))

    return network


def concat(backend: Any) -> Any:
    w = vector(backend, "norm", WIDTH)

    def network(ops: Any, step: Any) -> Any:
        return Outputs(hidden=ops.concat(inputs(backend, ops, step, 32), ops.rms_norm(ops.hidden(step), w, EPS)))

    return network


def linears(format: Format) -> Callable[[Any], Any]:
    """A list of weights (one of another family, ragged rows), the residual and the gated form."""

    def define(backend: Any) -> Any:
        a, b, c = (matrix(backend, name, n, WIDTH, format) for name, n in (("a", 160), ("b", 160), ("c", 21)))
        d, back = matrix(backend, "d", 40, WIDTH), matrix(backend, "back", WIDTH, 160, format)

        def network(ops: Any, step: Any) -> Any:
            x = inputs(backend, ops, step)
            first, second, third = ops.linear(x, [a, d, c])
            x = ops.linear_add(ops.gate_up(x, a, b), back, x)
            return Outputs(hidden=ops.concat(ops.concat(first, second), ops.concat(third, x)))

        return network

    return define


def causal_conv(backend: Any) -> Any:
    w = vector(backend, "conv", DELTA.channels, TAPS, low=-0.7, high=0.7)
    return lambda ops, step: Outputs(hidden=ops.causal_conv(inputs(backend, ops, step, DELTA.channels), w, 0, step))


def delta_layer(format: Format) -> Callable[[Any], Any]:
    """Projections, convolution, delta rule, gated norm, residual: everything that reads or writes a slot."""
    return _delta_layer(format, joined=True)


def delta_layer_apart(format: Format) -> Callable[[Any], Any]:
    """The same, with an op between others that a recorder would join."""
    return _delta_layer(format, joined=False)


def _delta_layer(format: Format, *, joined: bool) -> Callable[[Any], Any]:
    def define(backend: Any) -> Any:
        width = DELTA.num_v * DELTA.v_dim
        sizes = {"qkv": DELTA.channels, "a": 4, "b": 4, "z": width}
        w = {name: matrix(backend, name, n, WIDTH, format) for name, n in sizes.items()}
        back = matrix(backend, "out", WIDTH, width, format)
        conv, decay, dt_bias = delta_vectors(backend)
        norm = vector(backend, "norm", DELTA.v_dim)

        def network(ops: Any, step: Any) -> Any:
            x = inputs(backend, ops, step)
            qkv, z, b, a = ops.linear(x, [w["qkv"], w["z"], w["b"], w["a"]])
            qkv = ops.causal_conv(qkv, conv, 0, step)
            if not joined:
                ops.rms_norm(z, vector(backend, "unused", width), EPS)
            out = ops.gated_delta(qkv, a, b, decay, dt_bias, 0, DELTA, step)
            return Outputs(hidden=ops.linear_add(ops.gated_rms_norm(out, z, norm, EPS), back, x))

        return network

    return define


def delta_vectors(backend: Any) -> tuple[Any, Any, Any]:
    conv = vector(backend, "conv", DELTA.channels, TAPS, low=-0.7, high=0.7)
    return conv, vector(backend, "decay", 4, low=-0.9, high=-0.001), vector(backend, "dt", 4, low=-2, high=1)


def replay(backend: Any) -> Any:
    conv, decay, dt_bias = delta_vectors(backend)

    def network(ops: Any, step: Any) -> Any:
        ops.replay(conv, decay, dt_bias, 0, DELTA, step)
        return Outputs()

    return network


def attention_layer(format: Format) -> Callable[[Any], Any]:
    def define(backend: Any) -> Any:
        q = matrix(backend, "q", 2 * ATTENTION.num_q * ATTENTION.head_dim, WIDTH, format)
        k, v = (matrix(backend, name, ATTENTION.num_kv * ATTENTION.head_dim, WIDTH, format) for name in "kv")
        back = matrix(backend, "o", WIDTH, ATTENTION.num_q * ATTENTION.head_dim, format)
        q_norm, k_norm = (vector(backend, n, ATTENTION.head_dim, low=1, high=2) for n in ("q_norm", "k_norm"))

        def network(ops: Any, step: Any) -> Any:
            x = inputs(backend, ops, step)
            query_gate, key, value = ops.linear(x, [q, k, v])
            query = ops.norm_rope(query_gate, q_norm, EPS, ATTENTION, step, gated=True)
            key = ops.norm_rope(key, k_norm, EPS, ATTENTION, step, gated=False)
            out = ops.attention(query, key, value, query_gate, 0, ATTENTION, step)
            return Outputs(hidden=ops.linear_add(out, back, x))

        return network

    return define


def head(format: Format) -> Callable[[Any], Any]:
    def define(backend: Any) -> Any:
        table = matrix(backend, "table", 5000, WIDTH, format)  # three chunks of the log-sum-exp

        def network(ops: Any, step: Any) -> Any:
            x = inputs(backend, ops, step)
            return Outputs(hidden=x, head=ops.head(x, table, step))

        return network

    return define


@dataclass(frozen=True)
class Piece:
    """A run, its tokens taken from position `context` of the sequence that its slot stands for."""

    slot: int
    context: int
    length: int
    role: Role = Role.PROMPT
    commit: bool = True
    snapshots: tuple[tuple[int, int], ...] = ()
    sequence: int | None = None  # whose tokens; the slot's own if None


def make_batch(pieces: Sequence[Piece], wanted: Sequence[int] = (), top_k: int = 0, hidden: Any = None) -> Batch:
    tokens, positions, runs = [], [], []
    for p in pieces:
        sequence = p.slot if p.sequence is None else p.sequence
        stream = np.random.default_rng(sequence).integers(0, VOCAB, 4096).astype(np.int32)
        tokens.append(stream[p.context : p.context + p.length])
        positions.append(np.arange(p.context, p.context + p.length))
        # Pages in an order of their own: page numbers must not matter.
        pages = np.arange(PAGES_EACH, dtype=np.int32)[::-1] * NUM_SLOTS + sequence
        runs.append(Run(p.length, p.role, p.context, p.slot, pages, p.commit, p.snapshots))
    angles = np.concatenate(positions)[:, None] * 0.3 ** np.arange(ATTENTION.rotary_dim // 2)
    cos, sin = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
    return Batch(np.concatenate(tokens), cos, sin, tuple(runs), np.array(wanted, np.int32), top_k, hidden)


@dataclass
class Opened:
    """A backend with a cache and one program, and how to feed it."""

    backend: Any
    program: Any

    def __call__(self, pieces: Sequence[Piece], **options: Any) -> np.ndarray:
        return self.program.run(make_batch(pieces, **options)).hidden.copy()


def open_network(define: Callable[[Any], Any], backend: Any, kv_format: str = "f32", max_tokens: int = 400) -> Opened:
    network = define(backend)
    backend.open_cache(cache_shape(kv_format))
    return Opened(backend, backend.compile(network, max_tokens=max_tokens))
