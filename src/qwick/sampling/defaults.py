"""Sampling where the caller leaves it open: what the model's files say, else what its card advises.

The released 4B and 9B come without generation_config.json, and no file knows the presence penalty that the cards ask
for against repetition; so their advice is kept here, per size and mode.
"""

from collections.abc import Mapping
from typing import Any

from qwick.errors import CheckpointError, UsageError
from qwick.sampling.params import SamplingParams

# (hidden_size of the sizes, thinks) -> the card's row for general text. The cards' other rows (vision, precise coding,
# "reasoning" without thinking, which the 4B/9B card gives in two versions) are for callers who know their task.
CARDS: Mapping[tuple[tuple[int, ...], bool], Mapping[str, float]] = {
    # 0.8B, 2B
    ((1024, 2048), False): {"temperature": 1.0, "top_p": 1.0, "top_k": 20, "min_p": 0.0, "presence_penalty": 2.0},
    ((1024, 2048), True): {"temperature": 1.0, "top_p": 0.95, "top_k": 20, "min_p": 0.0, "presence_penalty": 1.5},
    # 4B, 9B
    ((2560, 4096), False): {"temperature": 0.7, "top_p": 0.8, "top_k": 20, "min_p": 0.0, "presence_penalty": 1.5},
    ((2560, 4096), True): {"temperature": 1.0, "top_p": 0.95, "top_k": 20, "min_p": 0.0, "presence_penalty": 1.5},
}

# Keys of generation_config.json (transformers, vLLM); those of GGUF files are llama.cpp's, `src/llama-arch.cpp`.
_CONFIG_KEYS = {
    name: name
    for name in (
        "temperature",
        "top_k",
        "top_p",
        "min_p",
        "presence_penalty",
        "frequency_penalty",
        "repetition_penalty",
    )
}
_GGUF_KEYS = {
    "general.sampling.temp": "temperature",
    "general.sampling.top_k": "top_k",
    "general.sampling.top_p": "top_p",
    "general.sampling.min_p": "min_p",
    "general.sampling.penalty_repeat": "repetition_penalty",
}
_GGUF_PENALTY_LENGTH = "general.sampling.penalty_last_n"  # 0: no penalty; we count over all that was seen


def card(hidden_size: int, *, think: bool) -> Mapping[str, float]:
    """The card's advice for the released size with this hidden size; nothing for other models."""
    none: Mapping[str, float] = {}
    return next((row for (sizes, thinks), row in CARDS.items() if hidden_size in sizes and thinks == think), none)


def from_generation_config(raw: Mapping[str, Any], where: str) -> dict[str, Any]:
    """What a generation_config.json says, by our names. `do_sample` false means greedy, as in transformers.

    Raises CheckpointError, naming the file as `where`.
    """
    advice = _advice(raw, _CONFIG_KEYS, where)
    return advice | {"temperature": 0.0} if raw.get("do_sample") is False else advice


def from_gguf(metadata: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The same from the metadata of a GGUF file. Its samplers that qwick lacks (XTC, mirostat) are not advice to us."""
    advice = _advice(metadata, _GGUF_KEYS, where)
    if metadata.get(_GGUF_PENALTY_LENGTH) == 0:
        advice.pop("repetition_penalty", None)
    return advice


def with_defaults(
    given: Mapping[str, Any], advice: Mapping[str, Any], hidden_size: int, *, think: bool
) -> SamplingParams:
    """`given` by the caller (None: left open) before the files' `advice` before the card's.

    The cards advise on sampling: who asks for temperature 0 gets the likeliest token, without their penalty.
    Raises UsageError for a name that SamplingParams has not, and for its values.
    """
    unknown = given.keys() - SamplingParams.__dataclass_fields__.keys()
    if unknown:
        known = ", ".join(SamplingParams.__dataclass_fields__)
        raise UsageError(f"there is no sampling option {min(unknown)!r:.80}; known: {known}")
    chosen = {**advice, **{name: value for name, value in given.items() if value is not None}}
    if chosen.get("temperature") == 0:
        return SamplingParams(**chosen)
    row: dict[str, Any] = {**card(hidden_size, think=think)}
    return SamplingParams(**row | chosen)


def _advice(raw: Mapping[str, Any], keys: Mapping[str, str], where: str) -> dict[str, Any]:
    advice = {name: raw[key] for key, name in keys.items() if raw.get(key) is not None}
    if advice.get("top_k") == -1:  # all tokens, to vLLM and llama.cpp
        advice["top_k"] = 0
    try:
        SamplingParams(**advice)
    except UsageError as error:
        raise CheckpointError(f"{where}: {error}") from None
    return advice
