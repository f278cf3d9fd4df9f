"""Predictions are arithmetic over limits: tested against counts known from elsewhere, and against their own sense."""

from dataclasses import replace

import pytest

from qwick.bench import predict as module
from qwick.bench.limits import FamilyRates, MachineLimits
from qwick.bench.predict import predict
from qwick.bench.sizes import SIZES, size_config
from qwick.formats import BF16, F32, Q4_0, Q8_0, Family
from qwick.model.names import tensor_specs

RATES = FamilyRates(decode_bytes=20e9, narrow_bytes=20e9, prompt_madds=50e9, load_bytes=2e9)
MACHINE = MachineLimits(
    isa="avx2",
    threads=2,
    threads_batch=2,
    available_bytes=64 << 30,
    read_bytes=20e9,
    copy_bytes=4e9,
    families=dict.fromkeys(Family, RATES),
)
READ = {"0.8b": 752e6, "2b": 1882e6, "4b": 4206e6, "9b": 7937e6}  # weights a decoded token reads: the facts page


def all_in(format, size):
    """Every matrix in one format, but the gates."""
    return {s.name: format if s.coarse else F32 for s in tensor_specs(size_config(size)) if s.matrix}


@pytest.mark.parametrize("size", SIZES)
def test_a_token_reads_every_weight_and_the_states_and_nothing_else(size, monkeypatch):
    monkeypatch.setattr(module, "DECODE_SHARE", 1.0)
    state_bytes = {"0.8b": 18.0 + 1.27, "2b": 18.0 + 1.27, "4b": 48.0 + 2.25, "9b": 48.0 + 2.25}
    short = size.removeprefix("qwen3.5:")
    wanted = READ[short] * 2 + 2 * state_bytes[short] * 2**20
    found = predict(size_config(size), all_in(BF16, size), MACHINE)
    assert found.decode_rate == pytest.approx(20e9 / wanted, rel=2e-3)


@pytest.mark.parametrize("size", SIZES)
def test_memory_is_the_sum_of_its_parts(size):
    found = predict(size_config(size), all_in(BF16, size), MACHINE, context_len=262_144)
    kv = {"0.8b": 3, "2b": 3, "4b": 8, "9b": 8}[size.removeprefix("qwen3.5:")]
    mtp_layer = 1 + 1 / (6 if kv == 3 else 8)  # the MTP block's keys and values too
    assert found.cache_bytes == pytest.approx(kv * mtp_layer * 2**30, rel=0.02)
    assert found.file_bytes == found.weight_bytes  # bf16 is the same in both
    assert found.memory_bytes == found.weight_bytes + found.cache_bytes + found.other_bytes
    assert found.fits


@pytest.mark.parametrize("size", SIZES)
def test_fewer_bits_and_faster_machines_are_faster(size):
    config = size_config(size)
    small, middle, large = (predict(config, all_in(format, size), MACHINE) for format in (Q4_0, Q8_0, BF16))
    assert small.decode_rate > middle.decode_rate > large.decode_rate
    assert small.weight_bytes < middle.weight_bytes < large.weight_bytes
    double = FamilyRates(40e9, 40e9, 100e9, 4e9)
    twice = replace(MACHINE, read_bytes=40e9, copy_bytes=8e9, families=dict.fromkeys(Family, double))
    faster = predict(config, all_in(BF16, size), twice)
    assert faster.decode_rate == pytest.approx(2 * large.decode_rate)
    assert faster.prompt_rate == pytest.approx(2 * large.prompt_rate)
    assert faster.start_seconds < large.start_seconds
    assert faster.memory_bytes == large.memory_bytes


def test_larger_models_are_slower_and_heavier():
    found = [predict(size_config(size), all_in(Q8_0, size), MACHINE) for size in SIZES]
    for attribute, ascending in (("memory_bytes", True), ("decode_rate", False), ("prompt_rate", False)):
        values = [getattr(f, attribute) for f in found]
        assert values == sorted(values, reverse=not ascending)


def test_what_does_not_fit_is_said():
    little = replace(MACHINE, available_bytes=1 << 30)
    assert not predict(size_config("qwen3.5:0.8b"), all_in(BF16, "qwen3.5:0.8b"), little).fits
    assert predict(size_config("qwen3.5:0.8b"), all_in(Q4_0, "qwen3.5:0.8b"), little).fits


def test_narrow_models_have_the_rate_of_narrow_matrices():
    slow = replace(MACHINE, families=dict.fromkeys(Family, replace(RATES, narrow_bytes=10e9)))
    for size, slower in (("qwen3.5:0.8b", True), ("qwen3.5:2b", False)):
        config, formats = size_config(size), all_in(Q8_0, size)
        assert (predict(config, formats, slow).decode_rate < predict(config, formats, MACHINE).decode_rate) == slower


def test_families_that_were_not_measured_count_at_the_machines_rates():
    bare = replace(MACHINE, families={Family.BF16: RATES})
    size = "qwen3.5:2b"
    assert predict(size_config(size), all_in(Q8_0, size), bare).decode_rate == pytest.approx(
        predict(size_config(size), all_in(Q8_0, size), MACHINE).decode_rate
    )
