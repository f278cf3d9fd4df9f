"""Whose word counts on sampling: the caller's, the files', the card's; and what the cards say."""

from typing import Any

import pytest

from qwick.errors import CheckpointError, UsageError
from qwick.sampling.defaults import card, from_generation_config, from_gguf, with_defaults
from qwick.sampling.params import SamplingParams

POCKET = {"do_sample": False, "eos_token_id": [379, 377], "pad_token_id": 377}


def params_of(hidden_size: int, think: bool = False, files: Any = None, **given: Any) -> SamplingParams:
    return with_defaults(given, from_generation_config(files or {}, "g.json"), hidden_size, think=think)


# temperature, top_p, top_k, min_p, presence, repetition: the cards' tables, read again
@pytest.mark.parametrize(
    ("sizes", "think", "row"),
    [
        ((1024, 2048), False, (1.0, 1.0, 20, 0, 2.0, 1.0)),
        ((1024, 2048), True, (1.0, 0.95, 20, 0, 1.5, 1.0)),
        ((2560, 4096), True, (1.0, 0.95, 20, 0, 1.5, 1.0)),
        ((2560, 4096), False, (0.7, 0.8, 20, 0, 1.5, 1.0)),
    ],
)
def test_the_released_sizes_sample_as_their_cards_advise(sizes: tuple[int, ...], think: bool, row: Any) -> None:
    for size in sizes:
        p = params_of(size, think)
        assert row == (p.temperature, p.top_p, p.top_k, p.min_p, p.presence_penalty, p.repetition_penalty)
        assert p.frequency_penalty == 0


def test_other_sizes_have_no_card() -> None:
    for size in (256, 5120):
        assert card(size, think=True) == card(size, think=False) == {}
        assert params_of(size) == SamplingParams()


def test_the_caller_before_the_file_before_the_card() -> None:
    p = params_of(1024, files={"temperature": 0.5, "top_k": 7, "repetition_penalty": 1.1}, top_k=9, top_p=None)
    assert (p.temperature, p.top_k, p.top_p, p.presence_penalty, p.repetition_penalty) == (0.5, 9, 1.0, 2.0, 1.1)
    assert params_of(1024, presence_penalty=0).presence_penalty == 0


def test_greedy_is_without_the_cards_penalty_but_keeps_the_files() -> None:
    """The advice is about sampling: temperature 0 means the likeliest token as it is."""
    assert params_of(1024, temperature=0).presence_penalty == 0
    assert params_of(1024, files={"do_sample": False}).presence_penalty == 0
    assert params_of(1024, files={"do_sample": False, "temperature": 0.5}).is_greedy
    assert params_of(1024, files={"do_sample": False}, temperature=1).presence_penalty == 2
    assert params_of(1024, files={"repetition_penalty": 1.1}, temperature=0).repetition_penalty == 1.1
    assert params_of(1024, temperature=0, presence_penalty=1).presence_penalty == 1


def test_the_pocket_model_stays_greedy() -> None:
    assert params_of(256, files=POCKET) == SamplingParams(temperature=0)


def test_gguf_files_speak_llama_cpps_names() -> None:
    raw = {
        "general.sampling.temp": 0.5,
        "general.sampling.top_k": 7,
        "general.sampling.top_p": 0.25,
        "general.sampling.min_p": 0.125,
        "general.sampling.penalty_repeat": 1.5,
        "general.sampling.mirostat": 0,
        "general.name": "x",
    }
    advice = from_gguf(raw, "m.gguf")
    assert advice == {"temperature": 0.5, "top_k": 7, "top_p": 0.25, "min_p": 0.125, "repetition_penalty": 1.5}
    assert "repetition_penalty" not in from_gguf(raw | {"general.sampling.penalty_last_n": 0}, "m.gguf")
    assert from_gguf({"general.sampling.top_k": -1}, "m.gguf") == {"top_k": 0}
    assert from_gguf({}, "m.gguf") == {}


@pytest.mark.parametrize(
    "senseless", [{"temperature": "hot"}, {"top_k": 1.5}, {"top_p": 7}, {"min_p": [1]}, {"repetition_penalty": 0}]
)
def test_a_senseless_file_is_named(senseless: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match=rf"g\.json: {next(iter(senseless))}"):
        from_generation_config(senseless, "g.json")


@pytest.mark.parametrize("value", [None, 3])
def test_an_option_nobody_knows_is_refused_even_when_left_open(value: Any) -> None:
    with pytest.raises(UsageError, match="typical_p"):
        params_of(1024, typical_p=value)
