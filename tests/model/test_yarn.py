"""YaRN's frequencies and angles are transformers', at positions to a million; its keys are read with suspicion."""

import numpy as np
import pytest
import torch
from transformers.models.qwen3_5.modeling_qwen3_5 import Qwen3_5TextRotaryEmbedding

from qwick.errors import ConfigError, UsageError
from qwick.model.config import parse_config
from qwick.model.rope import RopeTable
from qwick.model.source import open_source
from tests.checkpoints import RELEASED, small_config, write_checkpoint, yarn_config
from tests.model.test_gguf_network import rewritten
from tests.parity.reference import text_config

LAST = 1_010_000 - 1
POSITIONS = np.unique(np.concatenate([np.arange(300), np.arange(0, LAST, 997), [262_143, 262_144, 10**6, LAST]]))
CONFIGS = {
    f"{name}, {factor:g}, {keys}": yarn_config(config, factor, **keys)
    for name, config in {"0.8b": RELEASED["0.8b"], "9b": RELEASED["9b"], "small": small_config()}.items()
    for factor in (2.0, 4.0)
    for keys in (
        {},
        {"attention_factor": 1.3, "truncate": False},
        {"beta_fast": 24, "beta_slow": 2.5, "truncate": True},
    )
} | {
    "half of 80": yarn_config(small_config(head_dim=80, partial_rotary_factor=0.4), 1.5),
    "no ramp": yarn_config(small_config(), 4.0, original_max_position_embeddings=2),
    "nothing longer": yarn_config(small_config(), 1.0),
}
ULP_OF_1 = 2.0**-23  # of cos and sin before they are multiplied, libraries round to one of two neighbours


def bits(values):
    return np.asarray(values, np.float32).view(np.uint32)


@pytest.mark.parametrize("name", CONFIGS)
def test_frequencies_and_the_attention_factor_are_the_librarys_bits(name):
    config = CONFIGS[name]
    parsed = parse_config(config)
    library = Qwen3_5TextRotaryEmbedding(text_config(config))
    found = parsed.yarn.inverse_frequencies(parsed.rope_theta, parsed.attention.rotary_dim)
    np.testing.assert_array_equal(bits(found), bits(library.inv_freq))
    assert bits(parsed.yarn.magnitude) == bits(library.attention_scaling)


@pytest.mark.parametrize("name", CONFIGS)
def test_angles_at_positions_to_a_million(name):
    config = CONFIGS[name]
    library = Qwen3_5TextRotaryEmbedding(text_config(config))
    cos, sin = library(torch.zeros(1), torch.from_numpy(np.tile(POSITIONS, (3, 1)))[:, None])
    half = cos.shape[-1] // 2
    for found, expected in zip(RopeTable(parse_config(config)).angles(POSITIONS), (cos, sin), strict=True):
        assert found.dtype == np.float32
        assert np.abs(found - expected[0, :, :half].numpy()).max() <= ULP_OF_1 * (1.3 if "1.3" in name else 1.14)


def test_kept_blocks_hold_the_bits_of_fresh_angles():
    table = RopeTable(parse_config(CONFIGS["9b, 4, {}"]))
    span = range(LAST - 100, LAST + 1)
    for kept, fresh in zip(table.text_angles([span]), table.angles(np.arange(span.start, span.stop)), strict=True):
        np.testing.assert_array_equal(bits(kept), bits(fresh))


@pytest.mark.parametrize(("factor", "longest"), [(2, 524_288), (4, 1_010_000)])
def test_how_long_contexts_become(factor, longest):
    plain = parse_config(RELEASED["9b"])
    asked = plain.with_yarn(factor)
    assert asked.max_position_embeddings == longest
    assert asked == parse_config(yarn_config(RELEASED["9b"], factor)) == asked.with_yarn(factor)
    with pytest.raises(UsageError, match="already"):
        asked.with_yarn(3)
    config = yarn_config(RELEASED["9b"], factor)
    config["text_config"]["max_position_embeddings"] = longest  # of a config that says what it makes possible
    assert parse_config(config).max_position_embeddings == longest
    assert parse_config(config).yarn == asked.yarn
    assert parse_config(small_config()).with_yarn(factor).max_position_embeddings == factor * 8192


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({"factor": None}, "lacks 'factor'"),
        ({"factor": 0.5}, "less than 1"),
        ({"factor": "4"}, "factor = '4' is not a number"),
        ({"beta_fast": 1, "beta_slow": 2}, "less than beta_slow"),
        ({"beta_slow": 0}, "beta_slow = 0 is not"),
        ({"original_max_position_embeddings": 0}, "original_max_position_embeddings = 0"),
        ({"attention_factor": -1.0}, "attention_factor = -1.0"),
        ({"truncate": 1}, "truncate = 1 is not true or false"),
        ({"mscale": 1.0}, "does not know: mscale"),
        ({"rope_type": "longrope"}, "'longrope' is not implemented"),
        ({"rope_type": "default"}, "does not know: factor"),
    ],
)
def test_names_the_key_that_it_cannot_follow(keys, reason):
    with pytest.raises(ConfigError, match=reason):
        parse_config(yarn_config(small_config(), **{"factor": 4.0, **keys}))


def scaled(**keys):
    def change(writer):
        writer.add_string("qwen35.rope.scaling.type", "yarn")
        for name, value in {"factor": 4.0, "original_context_length": 4096, **keys}.items():
            (writer.add_float32 if isinstance(value, float) else writer.add_uint32)(
                f"qwen35.rope.scaling.{name}", value
            )

    return change


def test_a_gguf_file_says_the_same(tmp_path):
    change = scaled(yarn_beta_fast=24.0, yarn_beta_slow=2.5, yarn_attn_factor=1.0, finetuned=1)
    with open_source(rewritten(tmp_path / "a.gguf", change=change)) as source:
        found = source.config
    keys = {"original_max_position_embeddings": 4096, "beta_fast": 24.0, "beta_slow": 2.5}
    assert found.yarn == parse_config(yarn_config(small_config(), 4.0, **keys)).yarn
    assert found.max_position_embeddings == 16384


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({"yarn_ext_factor": 0.5}, "yarn_ext_factor"),
        ({"yarn_attn_factor": 1.2}, "yarn_attn_factor = 1.2; qwick implements 1.1386"),
        ({"yarn_log_multiplier": 0.1}, "yarn_log_multiplier"),
        ({"attn_factor": 0.5}, "attn_factor = 0.5"),
        ({"factor": 0.25}, "less than 1"),
    ],
)
def test_keys_of_a_gguf_file_that_are_refused(tmp_path, keys, reason):
    with pytest.raises(ConfigError, match=reason):
        open_source(rewritten(tmp_path / "a.gguf", change=scaled(**keys)))


@pytest.mark.parametrize("keys", [{}, {"beta_fast": 24.0, "original_max_position_embeddings": 4096}])
def test_convert_writes_what_it_read(tmp_path, keys):
    from qwick.quantize.metadata import network_keys

    config = parse_config(yarn_config(small_config(), 4.0, **keys))
    written = {name.removeprefix("qwen35."): value for name, value in network_keys(config).items()}
    given = {name.removeprefix("rope.scaling."): value for name, value in written.items() if "scaling" in name}
    assert given.pop("type") == "yarn"
    with open_source(rewritten(tmp_path / "a.gguf", change=scaled(**given))) as source:
        assert source.config.yarn == config.yarn
    with pytest.raises(ConfigError, match="attention_factor"):
        network_keys(parse_config(yarn_config(small_config(), 4.0, attention_factor=1.3)))


def test_a_folder_with_yarn_opens(tmp_path):
    with open_source(write_checkpoint(tmp_path / "model", yarn_config(small_config(), 2.0), 1)) as source:
        assert source.config.yarn.original_len == 8192
