"""A config changed at random is refused with a ConfigError, or describes a network whose sizes fit together."""

import copy
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwick.errors import ConfigError
from qwick.model.config import ModelConfig, parse_config
from qwick.model.names import tensor_specs
from qwick.model.rope import RopeTable
from tests.checkpoints import RELEASED, small_config, text_only, yarn_config
from tests.limits import in_memory, in_time

MIB = 1 << 20
YARN = yarn_config(small_config(), 4.0, beta_fast=16, beta_slow=2.0, attention_factor=1.5, truncate=False)
RIGHT = [*RELEASED.values(), small_config(), text_only(small_config(tie_word_embeddings=False)), YARN]

# All that `read_json` lets through: no integer beyond 4,300 digits, no lone surrogate, no NaN (checked all the same).
numbers = st.one_of(
    st.integers(-3, 20),
    st.sampled_from([16, 24, 31, 32, 255, 4096, 2**20, 2**31, 2**32, 2**63, 2**64, 10**30, -(2**63), 10**4000]),
    st.floats(),
    st.sampled_from([0.0, -0.0, 1e-300, 5e-324, 0.25, 0.999, 1e300, math.nan, math.inf, -math.inf]),
)
words = st.one_of(st.text(max_size=8), st.sampled_from(["", "silu", "default", "yarn", "qwen3_5", "full_attention"]))
anything = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, words),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(words, inner, max_size=3)),
    max_leaves=6,
)


def places(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths of all values inside a config (of the first two elements of a list)."""
    found: list[tuple[Any, ...]] = [path] if path else []
    if isinstance(node, dict):
        for key, value in node.items():
            found += places(value, (*path, key))
    elif isinstance(node, list):
        for i, value in enumerate(node[:2]):
            found += places(value, (*path, i))
    return found


def mutate(config: Any, path: tuple[Any, ...], action: str, value: Any) -> None:
    """Replace, remove, rename or repeat the value at `path`, if an earlier mutation left it there."""
    for key in path[:-1]:
        if not isinstance(config, dict | list) or (isinstance(config, list) and not isinstance(key, int)):
            return
        try:
            config = config[key]
        except (KeyError, IndexError):
            return
    last = path[-1]
    if isinstance(config, dict) and last in config:
        if action == "remove":
            del config[last]
        elif action == "rename":
            config[str(last) + "_"] = config.pop(last)
        else:
            config[last] = [config[last]] if action == "repeat" else value
    elif isinstance(config, list) and isinstance(last, int) and last < len(config):
        if action == "remove":
            del config[last]
        else:
            config[last] = [config[last]] if action == "repeat" else value


def check(config: Any) -> None:
    with in_time():
        try:
            parsed = parse_config(config)
        except ConfigError as error:
            text = str(error)
            assert len(text) < 1000
            text.encode("utf-8")
        else:
            check_fits(parsed)


def check_fits(config: ModelConfig) -> None:
    """What the rest of qwick relies on: types, ranges, and a list of tensors of sane size."""
    for value in (
        config.vocab_size,
        config.hidden_size,
        config.intermediate_size,
        config.conv_kernel,
        config.num_layers,
    ):
        assert type(value) is int
        assert value > 0
    assert config.attention.num_q % config.attention.num_kv == 0
    assert config.delta.num_v % config.delta.num_k == 0
    assert 0 < config.attention.rotary_dim <= config.attention.head_dim
    assert config.attention.rotary_dim % 2 == 0
    assert type(config.rms_norm_eps) is float
    assert 0 < config.rms_norm_eps <= 1
    assert math.isfinite(config.rope_theta)
    assert config.rope_theta > 0
    assert all(type(n) is int and n >= 0 for n in config.mrope_section)
    assert config.tie_word_embeddings in (True, False, None)
    assert config.num_layers <= 1024
    assert config.vocab_size * config.hidden_size <= 1 << 36
    config.cache_shape(num_pages=1, num_slots=1)
    assert np.isfinite(RopeTable(config).angles(np.arange(3))).all()
    hash(config)


mutations = st.lists(
    st.tuples(st.integers(0, 10**6), st.sampled_from(["replace", "replace", "remove", "rename", "repeat"]), anything),
    min_size=1,
    max_size=3,
)


@settings(max_examples=500)
@given(st.sampled_from(RIGHT), mutations)
def test_mutated_configs(right: Any, changes: list[tuple[int, str, Any]]) -> None:
    config = copy.deepcopy(right)
    paths = places(config)
    for index, action, value in changes:
        mutate(config, paths[index % len(paths)], action, value)
    check(config)


@given(st.dictionaries(words, anything, max_size=5), st.booleans())
def test_arbitrary_objects(config: dict[str, Any], typed: bool) -> None:
    check({"model_type": "qwen3_5_text", **config} if typed else config)


EXTREMES = [
    None, True, False, 0, -1, 1, 2, 16, 2**20, 2**31, 2**63, 2**64, 10**4000, -(10**4000), 0.0, 0.5, 16.0, math.nan,
    math.inf, -math.inf, "", "16", "x" * 10**6, [], [[]], [16], {}, {"a": 1}, ["x"] * 10**5, [0] * 10**5,
]  # fmt: skip


@pytest.mark.parametrize("key", sorted(small_config()["text_config"]))
def test_every_key_with_every_extreme(key: str) -> None:
    for value in EXTREMES:
        config = small_config()
        config["text_config"][key] = value
        check(config)


@pytest.mark.parametrize("key", sorted(YARN["text_config"]["rope_parameters"]))
def test_every_rope_key_with_every_extreme(key: str) -> None:
    for value in [*EXTREMES, 1e-300, 1e300, 1.0, 63.99]:
        for right in (small_config(), YARN):
            config = copy.deepcopy(right)
            config["text_config"]["rope_parameters"][key] = value
            check(config)


@pytest.mark.parametrize("key", sorted(small_config()))
def test_every_outer_key_with_every_extreme(key: str) -> None:
    for value in EXTREMES:
        check(small_config() | {key: value})


@pytest.mark.parametrize("right", RIGHT, ids=[*RELEASED, "small", "text only", "yarn"])
def test_the_right_ones_are_accepted(right: Any) -> None:
    check_fits(parse_config(right))


def test_the_table_of_tensors_stays_small_for_the_largest_heads() -> None:
    """The table is made before any tensor is compared with it, so it must not grow with sizes that a config claims."""
    config = small_config(
        num_hidden_layers=32,
        layer_types=["linear_attention"] * 32,
        linear_num_key_heads=1024,
        linear_num_value_heads=1024,
        linear_key_head_dim=1024,
        linear_value_head_dim=1024,
    )
    with in_time(), in_memory(128 * MIB):
        try:
            parsed = parse_config(config)
        except ConfigError:
            return
        list(tensor_specs(parsed))


def test_very_many_unknown_keys_are_an_error_of_one_line() -> None:
    with pytest.raises(ConfigError, match="does not know"):
        parse_config({"model_type": "qwen3_5_text"} | {f"key_{i}": i for i in range(100_000)})
    check({"model_type": "qwen3_5_text"} | {f"key_{i}": i for i in range(10_000)})
