"""`yarn` as callers ask for it: contexts beyond the model's own, with a warning where the card is silent."""

import warnings
from dataclasses import replace

import pytest

from qwick import LLM
from qwick.errors import CapacityError, ContextWarning, UsageError
from qwick.model.config import parse_config
from qwick.opening import EngineOptions
from tests.checkpoints import RELEASED
from tests.small_model import LONGEST, write_small_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_small_model(tmp_path_factory.mktemp("long") / "model")


def test_a_context_beyond_the_models_own_needs_yarn(folder):
    with pytest.raises(CapacityError, match=r"takes 1 to 8,192; --yarn"):
        LLM(folder, context_len=2 * LONGEST)
    with pytest.warns(ContextWarning, match="beyond 8,192"), LLM(folder, context_len=2 * LONGEST, yarn=2) as long:
        answer = long.generate(list(range(1, 9)), max_tokens=3, temperature=0.0)
    assert answer.stats.prompt_tokens == 8
    assert long.config.max_position_embeddings == 2 * LONGEST
    with pytest.warns(ContextWarning), pytest.raises(CapacityError, match="1 to 16,384"):
        LLM(folder, context_len=2 * LONGEST + 1, yarn=2)


@pytest.mark.parametrize("factor", [1, 0, -2, 4.5, float("nan")])
def test_a_factor_that_no_card_speaks_of_is_refused(factor):
    with pytest.raises(UsageError, match="2 or 4"):
        EngineOptions(yarn=factor)


@pytest.mark.parametrize(("size", "warned"), [("0.8b", True), ("2b", True), ("4b", False), ("9b", False)])
def test_the_warning_is_for_models_whose_cards_do_not_claim_it(size, warned, folder):
    from qwick.model.source import open_source
    from qwick.opening import extended

    with open_source(folder) as source, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = extended(replace(source, config=parse_config(RELEASED[size])), 4.0)
    assert found.config.max_position_embeddings == 1_010_000
    assert [warning.category for warning in caught] == [ContextWarning] * warned
