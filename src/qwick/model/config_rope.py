"""The keys of config.json that say how positions turn queries and keys."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

from qwick.errors import ConfigError
from qwick.model.keys import Keys
from qwick.model.yarn import MOST_FACTOR, Yarn

_ROPE = frozenset("rope_theta partial_rotary_factor mrope_section mrope_interleaved rope_type type".split())
_YARN = frozenset("factor original_max_position_embeddings attention_factor beta_fast beta_slow truncate".split())


def rope_keys(text: Mapping[str, Any]) -> Keys:
    """Rope keys, from `rope_parameters` (transformers 5), `rope_scaling` (4) or the flat keys."""
    merged: dict[str, Any] = {k: text[k] for k in ("rope_theta", "partial_rotary_factor", "mrope_section") if k in text}
    for section_name in ("rope_scaling", "rope_parameters"):
        section = text.get(section_name)
        if section is None:
            continue
        if not isinstance(section, dict):
            raise ConfigError(f"config.json: {section_name} is not an object")
        merged |= cast("dict[str, Any]", section)
    rope_type = merged.get("rope_type", merged.get("type", "default"))
    if rope_type not in ("default", "yarn"):
        raise ConfigError(
            f"config.json: rope_type {rope_type!r:.80} is not implemented; qwick has 'default' and 'yarn'"
        )
    unknown = sorted(str(key) for key in merged.keys() - _ROPE - (_YARN if rope_type == "yarn" else set()))
    if unknown:
        raise ConfigError(f"config.json: rope keys that qwick does not know: {', '.join(unknown)[:300]}")
    if merged.get("mrope_interleaved", True) is not True:
        raise ConfigError("config.json: mrope_interleaved must be true")
    return Keys(merged)


def yarn_of(rope: Keys, longest: int) -> Yarn | None:
    """Of a rope section, in a config that claims `longest` tokens; null is a key left out."""
    if rope.get("rope_type", rope.get("type", "default")) != "yarn":
        return None
    keys = Keys({key: rope.get(key) for key in _YARN if rope.get(key) is not None})
    truncate = keys.get("truncate", True)
    if not isinstance(truncate, bool):
        raise ConfigError(f"config.json: truncate = {truncate!r:.80} is not true or false")
    attention_factor = keys.get("attention_factor")
    if attention_factor is not None:
        attention_factor = keys.number("attention_factor", None, low=0.0, high=1e3)
    return replace(
        read_yarn(keys, "factor", "original_max_position_embeddings", "beta_fast", "beta_slow", longest),
        attention_factor=attention_factor,
        truncate=truncate,
    )


def read_yarn(keys: Keys, factor: str, original_len: str, beta_fast: str, beta_slow: str, longest: int) -> Yarn:
    """By the names that a file gives these keys. The reference's defaults and conditions. Raises ConfigError."""
    yarn = Yarn(
        factor=keys.number(factor, None, low=0.0, high=MOST_FACTOR),
        original_len=keys.size(original_len, longest, limit=1 << 31),
        beta_fast=keys.number(beta_fast, 32.0, low=1e-3, high=1e6),
        beta_slow=keys.number(beta_slow, 1.0, low=1e-3, high=1e6),
    )
    if yarn.factor < 1 or yarn.beta_fast < yarn.beta_slow:
        raise ConfigError(
            f"{keys.where}: {factor} = {yarn.factor} is less than 1, or {beta_fast} = {yarn.beta_fast} "
            f"less than {beta_slow} = {yarn.beta_slow}"
        )
    return yarn


def rotary_dim(rope: Keys, head_dim: int) -> int:
    """How many of a head's dimensions turn. Raises ConfigError."""
    dim = int(head_dim * rope.number("partial_rotary_factor", 0.25, low=0.0, high=1.0))
    if dim < 2 or dim % 2:
        raise ConfigError(f"config.json: partial_rotary_factor gives {dim} rotary dims of {head_dim}; need even")
    return dim


def mrope_section(rope: Keys) -> tuple[int, int, int]:
    """Frequencies that follow time, height and width. Raises ConfigError."""
    section = rope.get("mrope_section", [11, 11, 10])
    if not isinstance(section, list) or len(cast("list[Any]", section)) != 3:
        raise ConfigError(f"config.json: mrope_section = {section!r:.80} is not three numbers")
    sizes = Keys({f"mrope_section[{i}]": n for i, n in enumerate(cast("list[Any]", section))})
    t, h, w = (sizes.size(f"mrope_section[{i}]", low=0, limit=512) for i in range(3))
    return t, h, w
