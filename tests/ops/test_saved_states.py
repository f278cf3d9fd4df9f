"""A state saved in the memory of pages comes back bit by bit, and no other page notices."""

import numpy as np
import pytest

from qwick.cache.spec import CacheSpec
from qwick.errors import KernelError
from qwick.ops.contract import KV_FORMATS, Batch, CacheShape, Outputs, Role, Run
from qwick.ops.native import NativeBackend
from qwick.ops.torch import TorchBackend
from tests.ops import small_networks as small

NUM_SLOTS, NUM_PAGES = 3, 24
SHAPES = {  # delta layers, attention layers, page_len: states of less than a page, of several, of odd parts
    "state in one page": (1, 2, 512),
    "odd layers": (3, 2, 64),
    "one part a page": (2, 1, 64),
    "parts behind the state": (1, 3, 128),
}


def layers(num_delta, num_attention):
    """Delta and attention layers, each with what the one before it computed."""

    def define(backend):
        qkv, a, b = (small.matrix(backend, name, n, small.WIDTH) for name, n in (("qkv", 320), ("a", 4), ("b", 4)))
        back = small.matrix(backend, "out", small.WIDTH, small.DELTA.num_v * small.DELTA.v_dim)
        conv, decay, dt_bias = small.delta_vectors(backend)
        q, k, v = (small.matrix(backend, name, n, small.WIDTH) for name, n in (("q", 256), ("k", 64), ("v", 64)))
        norm = small.vector(backend, "norm", small.ATTENTION.head_dim)
        wide, o = small.vector(backend, "wide", small.WIDTH), small.matrix(backend, "o", small.WIDTH, 128)

        def network(ops, step):
            x = small.inputs(backend, ops, step)
            for layer in range(num_delta):
                mixed, left, right = ops.linear(ops.rms_norm(x, wide, small.EPS), [qkv, a, b])
                mixed = ops.causal_conv(mixed, conv, layer, step)
                out = ops.gated_delta(mixed, left, right, decay, dt_bias, layer, small.DELTA, step)
                x = ops.linear_add(out, back, x)
            for layer in range(num_attention):
                gated, key, value = ops.linear(ops.rms_norm(x, wide, small.EPS), [q, k, v])
                query = ops.norm_rope(gated, norm, small.EPS, small.ATTENTION, step, gated=True)
                key = ops.norm_rope(key, norm, small.EPS, small.ATTENTION, step, gated=False)
                out = ops.attention(query, key, value, gated, layer, small.ATTENTION, step)
                x = ops.linear_add(out, o, x)
            return Outputs(hidden=x)

        return network

    return define


class Opened:
    def __init__(self, name, kv_format="f16", backend=None):
        num_delta, num_attention, page_len = SHAPES[name]
        self.backend = backend or NativeBackend(3)
        self.shape = CacheShape(
            num_attention,
            num_delta,
            small.ATTENTION,
            small.DELTA,
            small.TAPS,
            NUM_PAGES,
            NUM_SLOTS,
            page_len,
            kv_format,
        )
        network = layers(num_delta, num_attention)(self.backend)
        self.backend.open_cache(self.shape)
        self.program = self.backend.compile(network, max_tokens=200)

    def run(self, sequence, slot, pages, context, length):
        piece = small.Piece(slot, context, length, Role.PROMPT if context == 0 else Role.DECODE, sequence=sequence)
        batch = small.make_batch([piece])
        run = Run(length, piece.role, context, slot, np.array(pages, np.int32))
        arrays = batch.token_ids, batch.rope_cos, batch.rope_sin
        return self.program.run(Batch(*arrays, (run,), batch.wanted_rows)).hidden.copy()

    @property
    def state_pages(self):
        return CacheSpec(self.shape).state_pages


def same(found, expected):
    assert np.isfinite(found).all()
    np.testing.assert_array_equal(found.view(np.uint32), expected.view(np.uint32))


def check_round_trip(opened):
    """A sequence goes on from its saved state, in another slot; the pages around belong to another sequence."""
    count = opened.state_pages
    held = list(range(1, 2 * count + 1, 2))[::-1]  # every second page, in falling order
    mine, others = [NUM_PAGES - 1, NUM_PAGES - 2], [page for page in range(2 * count + 2) if page not in held][:2]
    opened.run(1, 0, mine, 0, 50)
    opened.run(2, 1, others, 0, 60)
    opened.backend.save_state(0, held)
    expected = opened.run(1, 0, mine, 50, 8)
    beside = opened.run(2, 1, others, 60, 4)
    for slot in (2, 0, 1):
        opened.run(3, slot, [NUM_PAGES - 3], 0, 20)
        opened.backend.load_state(held, slot)
        same(opened.run(1, slot, mine, 50, 8), expected)
    opened.run(2, 1, [NUM_PAGES - 4, NUM_PAGES - 5], 0, 60)  # the state of the other sequence, not its pages
    same(opened.run(2, 1, others, 60, 4), beside)
    return held


@pytest.mark.parametrize("kv_format", KV_FORMATS)
@pytest.mark.parametrize("name", SHAPES)
def test_a_saved_state_comes_back_and_other_pages_stay(name, kv_format):
    check_round_trip(Opened(name, kv_format))


def test_the_torch_ops_keep_states_too():
    held = check_round_trip(opened := Opened("odd layers", "f32", TorchBackend()))
    opened.run(3, 2, held[:1], 0, 5)
    with pytest.raises(KernelError, match="written"):
        opened.backend.load_state(held, 0)


@pytest.mark.parametrize("kv_format", KV_FORMATS)
def test_pages_that_held_a_state_serve_as_keys_and_values(kv_format):
    opened = Opened("odd layers", kv_format)
    expected = opened.run(1, 0, [20, 21], 0, 90), opened.run(1, 0, [20, 21], 90, 3)
    opened.run(2, 1, [22], 0, 40)
    opened.backend.save_state(1, pages := list(range(opened.state_pages)))
    for state in (0, 1):
        into = [pages[-1], pages[0]][:: 1 - 2 * state]
        same(opened.run(1, 0, into, 0, 90), expected[0])
        same(opened.run(1, 0, into, 90, 3), expected[1])


@pytest.mark.parametrize("make_backend", [NativeBackend, TorchBackend])
@pytest.mark.parametrize(
    ("slot", "change", "match"),
    [
        (NUM_SLOTS, {}, "slot"),
        (-1, {}, "slot"),
        (0, {0: NUM_PAGES}, "page"),
        (0, {1: -1}, "page"),
        (0, {1: 0}, "twice"),
    ],
)
def test_what_does_not_exist_is_refused(make_backend, slot, change, match):
    opened = Opened("odd layers", "f32", make_backend())
    pages = [change.get(i, i) for i in range(opened.state_pages)]
    with pytest.raises(KernelError, match=match):
        opened.backend.save_state(slot, pages)
    with pytest.raises(KernelError, match=match):
        opened.backend.load_state(pages, slot)


@pytest.mark.parametrize("kv_format", KV_FORMATS)
@pytest.mark.parametrize("name", SHAPES)
def test_as_many_pages_as_the_spec_says_and_no_fewer(name, kv_format):
    opened = Opened(name, kv_format)
    pages = list(range(opened.state_pages))
    opened.backend.save_state(0, [*pages, NUM_PAGES - 1])
    for call in (lambda: opened.backend.save_state(0, pages[1:]), lambda: opened.backend.load_state(pages[1:], 0)):
        with pytest.raises(KernelError, match=f"does not fit the .* of {len(pages) - 1} pages"):
            call()
