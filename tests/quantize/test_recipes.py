"""Recipes against what `llama-quantize` 0.3.36 (vendored with llama-cpp-python) chose for networks of these depths."""

from collections import Counter

import pytest

from qwick.errors import UsageError
from qwick.formats import F16
from qwick.model.config import parse_config
from qwick.quantize.recipes import RECIPES, recipe_formats, recipe_named
from tests.checkpoints import RELEASED, small_config

# Blocks whose sensitive matrices got more bits: an MTP block is the last one.
ENDS_25 = {0, 1, 2, 5, 8, 11, 14, 17, 20, 21, 22, 23, 24}
ENDS_24 = ENDS_25 - {24}
ENDS_33 = {0, 1, 2, 3, 6, 9, 12, 15, 18, 21, 24, 27, 28, 29, 30, 31, 32}


def config_of(layers, *, tied=True, mtp=True, hidden=256):
    sizes = {"hidden_size": hidden, "intermediate_size": hidden, "linear_value_head_dim": 64}  # rows of 256
    raw = small_config(num_hidden_layers=layers, tie_word_embeddings=tied, **sizes)
    return parse_config(raw).resolved(tie_word_embeddings=tied, has_mtp=mtp)


def block(name, config):
    return config.num_layers if name.startswith("mtp.") else int(name.split(".")[1])


@pytest.mark.parametrize(
    ("recipe", "layers", "mtp", "values", "down", "counts"),
    [
        ("Q4_K_M", 24, True, ENDS_25, ENDS_25, {"q4_k": 168, "q6_k": 27}),
        ("Q5_K_M", 24, True, ENDS_25, ENDS_25, {"q5_k": 168, "q6_k": 27}),
        ("Q4_K_S", 24, True, {0, 1, 2, 3}, {0, 1, 2}, {"q4_k": 187, "q5_k": 7, "q6_k": 1}),
        ("Q5_K_S", 24, True, set(), set(), {"q5_k": 194, "q6_k": 1}),
        ("Q6_K", 24, True, set(), set(), {"q6_k": 195}),
        ("Q4_0", 24, True, set(), set(), {"q4_0": 194, "q6_k": 1}),
        ("Q8_0", 24, True, set(), set(), {"q8_0": 195}),
        ("BF16", 24, True, set(), set(), {"bf16": 195}),
        ("F32", 24, True, set(), set(), {"f32": 195}),
        ("Q4_K_M", 24, False, ENDS_24, ENDS_24, {"q4_k": 162, "q6_k": 25}),
        ("Q4_K_M", 32, True, ENDS_33, ENDS_33, {"q4_k": 223, "q6_k": 35}),
        ("Q4_K_S", 32, True, {0, 1, 2, 3}, {0, 1, 2, 3}, {"q4_k": 249, "q5_k": 8, "q6_k": 1}),
    ],
)
def test_the_choice_is_llama_cpps(recipe, layers, mtp, values, down, counts):
    config = config_of(layers, tied=layers == 24, mtp=mtp)
    formats = recipe_formats(recipe, config)
    usual = Counter(formats.values()).most_common(1)[0][0]
    raised = {name for name, format in formats.items() if format != usual and ("layers." in name)}
    value_like = ("v_proj", "in_proj_qkv")
    assert {block(name, config) for name in raised if name.endswith(value_like)} == values
    assert {block(name, config) for name in raised if name.endswith("down_proj")} == down
    assert all(name.endswith((*value_like, "down_proj")) for name in raised)
    assert Counter(format.name for format in formats.values()) == counts


def test_the_matrix_that_makes_logits_gets_six_bits():
    tied, untied = recipe_formats("Q4_K_M", config_of(8)), recipe_formats("Q4_K_M", config_of(8, tied=False))
    assert tied["embed_tokens"].name == "q6_k"
    assert "lm_head" not in tied
    assert (untied["embed_tokens"].name, untied["lm_head"].name) == ("q4_k", "q6_k")
    assert recipe_formats("Q8_0", config_of(8))["embed_tokens"].name == "q8_0"


@pytest.mark.parametrize("recipe", ["Q4_K_M", "Q5_K_S", "Q6_K"])
def test_rows_that_do_not_divide_into_256_take_q8_0(recipe):
    formats = recipe_formats(recipe, config_of(4, hidden=320))
    assert formats["layers.0.mlp.down_proj"].name == "q8_0"
    assert formats["embed_tokens"].name == "q8_0"
    assert formats["layers.3.self_attn.o_proj"].name == recipe[:4].lower()  # 4 heads of 64


@pytest.mark.parametrize("size", ["0.8b", "2b", "4b", "9b"])
@pytest.mark.parametrize("recipe", RECIPES)
def test_every_matrix_of_the_released_sizes_divides(size, recipe):
    config = parse_config(RELEASED[size])
    formats = recipe_formats(recipe, config)
    assert len(formats) > 180
    assert (F16 in formats.values()) == (recipe == "F16")
    if "K" in recipe:
        assert "q8_0" not in {format.name for format in formats.values()}


def test_names_are_known_in_any_case_and_others_are_refused_with_the_list():
    assert recipe_named("q4_k_m") is RECIPES["Q4_K_M"]
    with pytest.raises(UsageError, match=r"unknown format 'q3_k_m'; known: F32, F16, BF16, Q8_0"):
        recipe_named("q3_k_m")
