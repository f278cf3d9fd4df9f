"""A rehearsal remembers what an engine remembers."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwick.cache.prefix import MissReason
from qwick.cache.spec import CacheSpec
from qwick.engine.config import EngineConfig
from qwick.engine.engine import Engine
from qwick.engine.rehearsal import Rehearsal
from qwick.engine.request import Request
from qwick.errors import CapacityError
from qwick.sampling.params import SamplingParams
from tests.engine.asking import prompt

GREEDY = SamplingParams(temperature=0, max_tokens=1)
BEGINNINGS = [prompt(70, 9) + prompt(110, seed) for seed in range(3)]


def rehearsal_of(models, config):
    return Rehearsal(CacheSpec(models("native").config.cache_shape(num_pages=0, num_slots=0)), config)


@st.composite
def requests(draw):
    length = draw(st.integers(1, 180))
    places = draw(st.sets(st.integers(1, length), max_size=4))
    return Request(draw(st.sampled_from(BEGINNINGS))[:length], GREEDY, tuple(sorted(places)))


@settings(max_examples=20, deadline=None)
@given(asked=st.lists(requests(), min_size=1, max_size=8), cache_memory=st.sampled_from([1 << 18, 1 << 20, 8 << 20]))
def test_it_finds_what_an_engine_finds(models, asked, cache_memory):
    config = EngineConfig(200, cache_memory=cache_memory)
    engine, rehearsal = Engine(models("native"), config), rehearsal_of(models, config)
    for request in asked:
        engine.add(request)
        stats = engine.step()[-1].stats
        seen = rehearsal.read(request)
        assert (seen.prompt_tokens, seen.cached_tokens, seen.miss) == (
            stats.prompt_tokens,
            stats.cached_tokens,
            stats.miss,
        )


def test_it_shows_what_was_there_instead(models):
    rehearsal = rehearsal_of(models, EngineConfig(200, cache_memory=1 << 20))
    first = BEGINNINGS[0]
    rehearsal.read(Request(first, GREEDY, (len(first),)))
    seen = rehearsal.read(Request(BEGINNINGS[1], GREEDY), num_instead=5)
    assert seen.miss is not None
    assert (seen.miss.reason, seen.miss.at) == (MissReason.DIVERGED, 70)
    assert seen.instead == first[70:75]
    assert rehearsal.read(Request((*first, 1), GREEDY), num_instead=5).instead == ()


def test_what_does_not_fit_is_refused(models):
    with pytest.raises(CapacityError, match="--ctx-size"):
        rehearsal_of(models, EngineConfig(100, cache_memory=1 << 20)).read(Request(prompt(100), GREEDY))
