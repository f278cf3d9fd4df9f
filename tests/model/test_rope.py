"""The rope table is transformers' table: the same f32 products, cos and sin within an ulp of 1."""

import numpy as np
import pytest
import torch
from transformers.models.qwen3_5.modeling_qwen3_5 import Qwen3_5TextRotaryEmbedding

from qwick.model import rope
from qwick.model.config import parse_config
from qwick.model.rope import RopeTable
from tests.checkpoints import RELEASED, small_config
from tests.parity.reference import text_config

CONFIGS = RELEASED | {
    "small": small_config(),
    "half of 80": small_config(head_dim=80, partial_rotary_factor=0.4),
    "all of 48": small_config(head_dim=48, partial_rotary_factor=1.0, num_attention_heads=2, num_key_value_heads=1),
}
ULP_OF_1 = 2.0**-23  # libraries round cos and sin to one of the two neighbours


def library_angles(config, positions):
    """cos, sin [tokens, rotary_dim / 2] for positions [3, tokens]."""
    rotary = Qwen3_5TextRotaryEmbedding(text_config(config))
    cos, sin = rotary(torch.zeros(1), torch.from_numpy(positions)[:, None])
    half = cos.shape[-1] // 2
    assert torch.equal(cos[..., :half], cos[..., half:])
    return cos[0, :, :half].numpy(), sin[0, :, :half].numpy()


@pytest.mark.parametrize("name", CONFIGS)
def test_text_positions_to_the_longest_context(name):
    config = CONFIGS[name]
    table = RopeTable(parse_config(config))
    longest = config["text_config"]["max_position_embeddings"]
    positions = np.unique(np.concatenate([np.arange(70), np.arange(0, longest, 997), [longest - 1]]))
    expected = library_angles(config, np.broadcast_to(positions, (3, len(positions))).copy())
    for actual, reference in zip(table.angles(positions), expected, strict=True):
        assert actual.dtype == np.float32
        assert np.abs(actual - reference).max() <= ULP_OF_1


@pytest.mark.parametrize("name", CONFIGS)
def test_three_rows_of_positions_interleave_as_the_librarys(name):
    config = CONFIGS[name]
    positions = np.random.default_rng(0).integers(0, 5000, (3, 50))
    expected = library_angles(config, positions)
    for actual, reference in zip(RopeTable(parse_config(config)).angles(positions), expected, strict=True):
        assert np.abs(actual - reference).max() <= ULP_OF_1


def test_equal_rows_are_text():
    table = RopeTable(parse_config(small_config()))
    positions = np.arange(100)
    for text, rows in zip(table.angles(positions), table.angles(np.tile(positions, (3, 1))), strict=True):
        assert np.array_equal(text, rows)


def test_kept_blocks_hold_the_bits_of_fresh_angles(monkeypatch):
    monkeypatch.setattr(rope, "_MAX_BLOCKS", 3)
    config = CONFIGS["small"]
    table = RopeTable(parse_config(config))
    far = 262_144 - 70  # beyond what numpy's vectors reduce: each lane alone
    for spans in ([range(5, 6)], [range(200), range(63, 64)], [range(far, far + 70)], [range(64, 128), range(5, 5)]):
        positions = np.concatenate([np.arange(span.start, span.stop) for span in spans])
        for kept, fresh in zip(table.text_angles(spans), table.angles(positions), strict=True):
            np.testing.assert_array_equal(kept.view(np.uint32), fresh.view(np.uint32))
            assert kept.flags.c_contiguous
