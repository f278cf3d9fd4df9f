"""Penalties as vLLM counts them, kept up to date token by token."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qwick.sampling.params import SamplingParams
from qwick.sampling.penalties import Penalties

VOCAB = 30
TOKENS = st.lists(st.integers(0, VOCAB - 1), max_size=60)
PARAMS = st.builds(
    SamplingParams,
    presence_penalty=st.sampled_from([0.0, 1.5, -2.0, 0.3]),
    frequency_penalty=st.sampled_from([0.0, 0.7, -0.1]),
    repetition_penalty=st.sampled_from([1.0, 1.3, 0.8]),
    logit_bias=st.dictionaries(
        st.integers(0, VOCAB - 1), st.sampled_from([-100.0, -math.inf, 0.0, 1.5, 100.0]), max_size=5
    ),
)


def plain(logits: list[float], prompt: list[int], output: list[int], params: SamplingParams) -> list[float]:
    """What vLLM does (v1/sample/sampler.py; model_executor/layers/utils.py), in plain Python, token by token."""
    out = list(logits)
    for token, bias in params.logit_bias.items():
        out[token] += bias
    for token in range(len(out)):
        if token in prompt or token in output:
            x = out[token]
            out[token] = x / params.repetition_penalty if x > 0 else x * params.repetition_penalty
        out[token] -= params.frequency_penalty * output.count(token)
        out[token] -= params.presence_penalty * (token in output)
    return out


def vectorised(logits: list[float], prompt: list[int], output: list[int], params: SamplingParams) -> list[float]:
    """The same as its tensors compute it: counts by scatter, scaling by a reciprocal, frequency before presence."""
    x = torch.tensor(logits, dtype=torch.float64)
    for token, bias in params.logit_bias.items():
        x[token] += bias

    def counts(ids: list[int]) -> torch.Tensor:
        place = torch.tensor(ids, dtype=torch.long)
        return torch.zeros(VOCAB, dtype=torch.long).scatter_add_(0, place, torch.ones_like(place))

    seen = (counts(prompt) > 0) | (counts(output) > 0)
    penalty = torch.ones(VOCAB, dtype=torch.float64).masked_fill_(seen, params.repetition_penalty)
    x *= torch.where(x > 0, 1 / penalty, penalty)
    x -= params.frequency_penalty * counts(output).double()
    x -= params.presence_penalty * (counts(output) > 0).double()
    return x.tolist()


def edited(logits: list[float], penalties: Penalties | None) -> list[float]:
    """The contract's arithmetic on the entries."""
    out = list(logits)
    if penalties:
        ids, values = penalties.entries()
        assert len(set(ids.tolist())) == len(ids) == len(values)
        assert (ids.dtype, values.dtype) == (np.int32, np.float32)
        for token, (bias, repetition, offset) in zip(ids.tolist(), values.tolist(), strict=True):
            x = out[token] + bias
            out[token] = (x / repetition if x > 0 else x * repetition) + offset
    return out


@given(TOKENS, TOKENS, PARAMS, st.integers(0, 2**32 - 1))
def test_after_every_token_the_logits_are_vllms(
    prompt: list[int], output: list[int], params: SamplingParams, seed: int
) -> None:
    logits = np.random.default_rng(seed).uniform(-20, 20, VOCAB).tolist()
    penalties = Penalties.of(params, prompt)
    for count in range(len(output) + 1):
        if count and penalties:
            penalties.push(output[count - 1])
        wanted = plain(logits, prompt, output[:count], params)
        # Values are f32: 2^-24 of numbers up to 100 (bias), 120 (offset).
        np.testing.assert_allclose(edited(logits, penalties), wanted, rtol=2e-7, atol=5e-5)
        np.testing.assert_allclose(vectorised(logits, prompt, output[:count], params), wanted, rtol=1e-12, atol=1e-12)


@given(TOKENS, TOKENS, PARAMS, st.data())
def test_reading_in_pieces_is_pushing_one_by_one(
    prompt: list[int], output: list[int], params: SamplingParams, data: st.DataObject
) -> None:
    pushed, read = Penalties(params, prompt), Penalties(params, prompt)
    for token in output:
        pushed.push(token)
    for end in sorted(data.draw(st.lists(st.integers(0, len(output)), max_size=4))):
        read.read([*prompt, *output[:end]])
    read.read([*prompt, *output])
    for left, right in zip(pushed.entries(), read.entries(), strict=True):
        np.testing.assert_array_equal(left, right)


def test_any_number_of_distinct_tokens() -> None:
    """Far beyond any first capacity, also when there was none at first."""
    params = SamplingParams(frequency_penalty=0.5, presence_penalty=1)
    penalties = Penalties(params, [])
    rng = np.random.default_rng(0)
    output = [*rng.permutation(5000).tolist(), *rng.integers(0, 5000, 3000).tolist()]
    for token in output:
        penalties.push(token)
    ids, values = penalties.entries()
    counts = np.bincount(output, minlength=5000)
    np.testing.assert_array_equal(np.sort(ids), np.arange(5000))
    np.testing.assert_allclose(values[:, 2], -(0.5 * counts[ids] + 1))
    np.testing.assert_array_equal(values[:, :2], np.tile(np.float32([0, 1]), (5000, 1)))


def test_without_penalties_nothing_is_kept() -> None:
    assert Penalties.of(SamplingParams(), [1, 2]) is None
    biased = Penalties.of(SamplingParams(logit_bias={3: -1.0}), [1, 2])
    assert biased
    biased.read([1, 2, 3, 4])
    assert biased.entries()[0].tolist() == [3]


@pytest.mark.parametrize(
    ("params", "seen"),
    [({"presence_penalty": 1}, [7]), ({"frequency_penalty": 1}, [7]), ({"repetition_penalty": 2}, [5, 6, 7])],
)
def test_who_counts_the_prompt(params: dict[str, Any], seen: list[int]) -> None:
    penalties = Penalties(SamplingParams(**params), [5, 6, 5])
    penalties.push(7)
    assert sorted(penalties.entries()[0].tolist()) == seen
