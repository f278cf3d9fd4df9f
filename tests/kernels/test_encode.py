"""f32 to blocks: what each encoder must hold whatever its search looks like. gguf-py decodes."""

import numpy as np
import pytest
from gguf import GGMLQuantizationType, quants
from hypothesis import given
from hypothesis import strategies as st

from qwick.errors import KernelError
from qwick.formats import BF16, ENCODABLE, F16, F32, FORMATS, Q4_0, Q4_1, Q4_K, Q5_K, Q6_K, Q8_0
from qwick.ops import native

BLOCKS = [Q4_0, Q8_0, Q4_K, Q5_K, Q6_K]
SEARCHED = [Q4_0, Q4_K, Q5_K, Q6_K]
LEVELS = {"q4_0": 16, "q8_0": 255, "q4_k": 16, "q5_k": 32, "q6_k": 64}


def decode(blocks, format):
    return quants.dequantize(blocks, GGMLQuantizationType(format.ggml_type))


def decoded(x, format):
    return decode(native.encode(x, format, threads=1), format)


def normal(seed, shape, scale=0.02):
    return (np.random.default_rng(seed).standard_normal(shape) * scale).astype(np.float32)


def naive_q4_0(x):
    """The plain rule: the value farthest from 0 gets code -8."""
    groups = x.reshape(-1, 32)
    far = np.take_along_axis(groups, np.abs(groups).argmax(1)[:, None], 1)
    d = (far / -8).astype(np.float16).astype(np.float32)
    return (np.clip(np.rint(groups / d), -8, 7) * d).reshape(x.shape)


def naive_affine(x, levels):
    """The plain rule: each sub-block's range in equal steps, scales and minima rounded to 6 bits of the largest."""
    groups = x.reshape(-1, 8, 32)
    low = np.minimum(groups.min(2, keepdims=True), 0)
    scale = (groups.max(2, keepdims=True) - low) / (levels - 1)
    d = (scale.max(1, keepdims=True) / 63).astype(np.float16).astype(np.float32)
    dmin = (-low.min(1, keepdims=True) / 63).astype(np.float16).astype(np.float32)
    s = np.clip(np.rint(scale / d), 1, 63) * d
    m = np.rint(-low / dmin) * dmin
    return (np.clip(np.rint((groups + m) / s), 0, levels - 1) * s - m).reshape(x.shape)


def naive_q6_k(x):
    groups = x.reshape(-1, 16, 16)
    scale = np.abs(groups).max(2, keepdims=True) / 31
    d = (scale.max(1, keepdims=True) / 127).astype(np.float16).astype(np.float32)
    s = np.rint(scale / d) * d
    return (np.clip(np.rint(groups / s), -32, 31) * s).reshape(x.shape)


NAIVE = {
    "q4_0": naive_q4_0,
    "q4_k": lambda x: naive_affine(x, 16),
    "q5_k": lambda x: naive_affine(x, 32),
    "q6_k": naive_q6_k,
}


def block_errors(x, y, format):
    return np.sqrt(np.square(x.astype(np.float64) - y).reshape(-1, format.block_len).sum(1))


@pytest.mark.parametrize("format", SEARCHED, ids=lambda f: f.name)
@pytest.mark.parametrize("offset", [0.0, 0.03, -0.05])
def test_no_block_is_worse_than_the_plain_rule(format, offset):
    """2 %: the search is greedy, and one block of thousands may end a little above."""
    x = normal(1, (64, 1024)) + np.float32(offset)
    ours, naive = (block_errors(x, y, format) for y in (decoded(x, format), NAIVE[format.name](x)))
    assert (ours <= naive * 1.02).all()
    assert np.sqrt(np.square(ours).mean()) < 0.97 * np.sqrt(np.square(naive).mean())


@pytest.mark.parametrize("format", BLOCKS, ids=lambda f: f.name)
def test_values_on_the_grid_come_back(format):
    """What blocks hold already survives being encoded again, all but exactly."""
    x = decoded(normal(2, (32, 1024)), format)
    again = decoded(x, format)
    if format is Q8_0:
        np.testing.assert_array_equal(again, x)
    else:
        assert np.sqrt(np.square(again - x).mean()) < 0.3 * 0.02 / LEVELS[format.name]


@pytest.mark.parametrize("format", ENCODABLE, ids=lambda f: f.name)
def test_zeros_stay_zeros_beside_other_values(format):
    x = normal(3, (4, 1024))
    x[1] = 0
    x[2, 256:512] = 0
    blocks = native.encode(x, format, threads=1)
    y = decode(blocks, format)
    assert (y[1] == 0).all()
    assert (y[2, 256:512] == 0).all()
    assert (y[0] != 0).any()


@pytest.mark.parametrize("format", BLOCKS, ids=lambda f: f.name)
@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_poisons_its_block_and_no_other(format, poison):
    x = normal(4, (3, 1024))
    clean = decoded(x, format)
    begin = 512 + format.block_len
    x[1, begin - 7] = poison
    y = decoded(x, format)
    hit = np.zeros(x.shape, bool)
    hit[1, begin - format.block_len : begin] = True
    assert np.isnan(y[hit]).all()
    np.testing.assert_array_equal(y[~hit], clean[~hit])


@pytest.mark.parametrize("format", SEARCHED, ids=lambda f: f.name)
@pytest.mark.parametrize("scale", [2e4, 2e5, 2e6, 2e7, 2e8, 2e10, 1e38])
def test_values_beyond_every_scale_are_not_wrong_numbers(format, scale):
    x = np.random.default_rng(5).uniform(-scale, scale, (4, 256)).astype(np.float32)
    x[1], x[2] = -np.float32(scale), np.abs(x[2])
    y = decoded(x, format)
    kept = ~np.isnan(y)
    assert not kept.any() or scale < 1e10
    assert kept.all() or scale > 1e5
    assert (np.abs(y[kept] - x[kept]) <= 3 * scale / LEVELS[format.name]).all()


@pytest.mark.parametrize("format", SEARCHED, ids=lambda f: f.name)
@pytest.mark.parametrize("scale", [1e-6, 1e-5, 1e-4, 1.0, 1e4])
def test_relative_error_hardly_depends_on_the_size_of_values(format, scale):
    """f16 scales lose their bits below 6e-5, where a careless encoder loses the whole block."""
    x = normal(5, (32, 1024), scale)
    lost = np.sqrt(np.square(decoded(x, format) - x).mean()) / scale
    quantum = 6 * 2.0**-24 / scale  # no value is stored finer than this
    assert lost < 1.6 / LEVELS[format.name] + quantum


@pytest.mark.parametrize("format", SEARCHED, ids=lambda f: f.name)
def test_twice_the_values_are_the_same_codes_at_twice_the_scale(format):
    x = normal(6, (8, 512), 1.0)
    np.testing.assert_array_equal(decoded(2 * x, format), 2 * decoded(x, format))


@pytest.mark.parametrize("format", ENCODABLE, ids=lambda f: f.name)
def test_a_row_depends_on_itself_alone(format):
    x = normal(7, (33, 512))
    together = native.encode(x, format, threads=3)
    assert together.shape == (33, format.num_bytes(1, 512))
    for row in (0, 16, 32):
        np.testing.assert_array_equal(native.encode(x[row : row + 1], format, threads=1)[0], together[row])


@pytest.mark.parametrize("format", [F32, F16, BF16, Q8_0], ids=lambda f: f.name)
def test_formats_without_a_choice_equal_gguf_py(format):
    x = normal(8, (16, 512)) * np.float32(10.0) ** np.random.default_rng(8).integers(-3, 4, (16, 1))
    expected = quants.quantize(x.astype(np.float32), GGMLQuantizationType(format.ggml_type))
    np.testing.assert_array_equal(native.encode(x.astype(np.float32), format), expected.view(np.uint8))


@given(
    st.sampled_from(BLOCKS),
    st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=40),
    st.integers(0, 2**32 - 1),
)
def test_error_is_a_fraction_of_the_range(format, values, seed):
    """Any values, many equal ones among them: no value is farther off than the whole block's RMS bound allows."""
    rng = np.random.default_rng(seed)
    x = rng.choice(np.array(values, np.float32), (1, 512))
    x[:, 256:] *= np.float32(2.0) ** rng.integers(-12, 1)
    groups = x.reshape(-1, 16 if format is Q6_K else 32).astype(np.float64)
    off = np.square(decoded(x, format) - x).reshape(groups.shape).sum(1)
    spread = np.abs(groups).max(1) if format in (Q4_0, Q8_0, Q6_K) else np.ptp(np.c_[groups, 0 * groups[:, :1]], axis=1)
    allowed = np.square(spread * (1.05 if format in (Q4_K, Q5_K) else 2.1) / (LEVELS[format.name] - 2) / 2)
    # Sub-blocks share one f16 scale: beside a large neighbour a small one is coarser.
    largest = spread.reshape(-1, format.block_len // groups.shape[1]).max(1).repeat(format.block_len // groups.shape[1])
    shared = 0 if format.block_len == 32 else np.square(largest / 63 / 2 * 1.5)
    subnormal = np.square(LEVELS[format.name] * 2.0**-24)  # f16 scales have no finer steps
    assert (off <= groups.shape[1] * (allowed + shared + subnormal)).all()


def test_the_default_is_every_thread():
    x = normal(9, (5, 256))
    np.testing.assert_array_equal(native.encode(x, Q4_K), native.encode(x, Q4_K, threads=1))


def test_no_rows_are_no_blocks():
    assert native.encode(np.empty((0, 256), np.float32), Q4_K).shape == (0, 144)


def test_other_layouts_of_the_same_values_encode_alike():
    x = normal(10, (64, 256))
    turned = np.asfortranarray(x)
    np.testing.assert_array_equal(native.encode(turned, Q6_K), native.encode(x, Q6_K))


@pytest.mark.parametrize("k", [1, 31, 128, 257])
def test_rows_that_do_not_divide_into_blocks_are_refused(k):
    with pytest.raises(KernelError, match=f"rows of {k} values do not divide into blocks of 256"):
        native.encode(np.zeros((2, k), np.float32), Q4_K)


@pytest.mark.parametrize("shape", [(), (256,), (1, 1, 256)])
def test_only_matrices_are_encoded(shape):
    with pytest.raises(KernelError, match="must be a matrix"):
        native.encode(np.zeros(shape, np.float32), Q4_K)


@pytest.mark.parametrize("format", sorted(set(FORMATS.values()) - set(ENCODABLE), key=lambda f: f.name))
def test_formats_that_are_only_read_are_refused(format):
    with pytest.raises(KernelError, match="cannot encode"):
        native.encode(np.zeros((1, 256), np.float32), format)
    assert Q4_1 not in ENCODABLE


@pytest.mark.parametrize("threads", [0, -1, 5000])
def test_impossible_numbers_of_threads_are_refused(threads):
    with pytest.raises(KernelError, match="threads"):
        native.encode(np.zeros((1, 256), np.float32), Q4_K, threads=threads)
