"""What the cache weighs: the figures of the facts page, and the bytes of the torch cache."""

from dataclasses import replace

import pytest
import torch

from qwick.cache.spec import CacheSpec, check_context
from qwick.errors import CapacityError
from qwick.model.config import parse_config
from qwick.ops.torch import TorchCache
from tests.checkpoints import RELEASED, small_config

# Facts page, section 1, without the MTP block: KV elements per token; S and conv state in MiB of f32.
PUBLISHED = {
    "0.8b": (6_144, 18.0, 1.27),
    "2b": (6_144, 18.0, 1.27),
    "4b": (16_384, 48.0, 2.25),
    "9b": (16_384, 48.0, 2.25),
}


def spec_of(config, **sizes):
    parsed = parse_config(config).resolved(tie_word_embeddings=True, has_mtp=False)
    return CacheSpec(parsed.cache_shape(num_pages=sizes.get("num_pages", 0), num_slots=sizes.get("num_slots", 0)))


@pytest.mark.parametrize("size", PUBLISHED)
def test_released_sizes(size):
    spec = spec_of(RELEASED[size])
    elements, recurrent, conv = PUBLISHED[size]
    assert spec.token_bytes == 2 * elements  # f16
    assert spec.page_bytes == 64 * spec.token_bytes
    assert spec.state_bytes / 2**20 == pytest.approx(recurrent + conv, abs=0.01)
    assert spec.slot_bytes > spec.state_bytes
    assert spec.state_pages == 26  # 1,664 tokens
    assert 25 * spec.page_bytes < spec.state_bytes <= 26 * spec.page_bytes


def test_a_network_without_attention_has_no_pages_for_a_state():
    shape = replace(spec_of(small_config()).shape, num_attention_layers=0)
    with pytest.raises(CapacityError, match="without attention layers"):
        _ = CacheSpec(shape).state_pages
    assert CacheSpec(replace(shape, num_delta_layers=0)).state_pages == 0


def test_the_mtp_block_counts_as_one_more_attention_layer():
    parsed = parse_config(RELEASED["0.8b"])
    shape = parsed.cache_shape(num_pages=0, num_slots=0)
    assert shape.num_attention_layers == parsed.num_attention_layers + 1 == 7
    assert CacheSpec(shape).token_bytes * 6 == spec_of(RELEASED["0.8b"]).token_bytes * 7


def test_total_bytes_are_those_of_the_tensors():
    shape = parse_config(small_config()).cache_shape(num_pages=3, num_slots=2)
    cache = TorchCache(shape, torch.float32)
    tensors = (cache.kv, cache.state, cache.conv, cache.pending_qkv, cache.pending_ab)
    assert CacheSpec(shape).total_bytes == sum(t.numel() * t.element_size() for t in tensors)


@pytest.mark.parametrize(("tokens", "pages"), [(0, 0), (1, 1), (64, 1), (65, 2), (4096, 64)])
def test_pages_for(tokens, pages):
    assert spec_of(small_config()).pages_for(tokens) == pages


def test_a_context_beyond_the_models_is_refused():
    check_context(1, 100)
    check_context(100, 100)
    for wrong in (0, 101):
        with pytest.raises(CapacityError, match=f"context of {wrong}"):
            check_context(wrong, 100)
