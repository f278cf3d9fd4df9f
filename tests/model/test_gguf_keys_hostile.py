"""Keys of any type and value end in our own error, or describe a network whose sizes fit together."""

import json
import math
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qwick.errors import QwickError
from qwick.model.config_gguf import parse_gguf_config
from qwick.model.names_gguf import gguf_specs
from qwick.model.rope import RopeTable
from qwick.text.chat_template import ChatTemplate
from qwick.text.tokenizer import Tokenizer
from qwick.weights.checkpoint import Strings, open_checkpoint
from tests.checkpoints import small_config
from tests.gguf_model import add_tokenizer, write_gguf
from tests.limits import in_time
from tests.model.memory import MemoryCheckpoint
from tests.text.tokenizer_folder import make_backend

PATH = Path("hostile.gguf")


def strings(values: list[str]) -> Strings:
    blob, ends = b"", list[int]()
    for value in values:
        blob += len(value.encode()).to_bytes(8, "little") + value.encode()
        ends.append(len(blob))
    return Strings("hostile", blob, np.array(ends, np.uint64))


numbers = st.one_of(
    st.integers(-3, 20),
    st.sampled_from([16, 64, 255, 256, 4096, 2**31, 2**32 - 1, 2**63, 2**64 - 1, -(2**63)]),
    st.floats(),
    st.sampled_from([0.0, -0.0, 1e-6, 1.0, math.nan, math.inf, -math.inf]),
    st.booleans(),
)
words = st.one_of(st.text(st.characters(codec="utf-8"), max_size=6), st.sampled_from(["", "qwen35", "gpt2", "none"]))
values = st.one_of(
    numbers,
    words,
    st.lists(words, max_size=5).map(strings),
    st.lists(st.integers(0, 9), max_size=6).map(lambda v: np.array(v, np.int32)),
    st.lists(st.floats(width=32), max_size=5).map(lambda v: np.array(v, np.float32)),
    st.lists(st.booleans(), max_size=6).map(lambda v: np.array(v, np.bool_)),
)


@pytest.fixture(scope="module")
def right(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, Any]]:
    """(metadata, arrays) of a model with a tokenizer and a template."""
    raw = json.loads(make_backend().to_str())

    def metadata(writer: gguf.GGUFWriter) -> None:
        add_tokenizer(writer, raw, 512)
        writer.add_chat_template("{{ messages }}")

    path = write_gguf(tmp_path_factory.mktemp("keys") / "a.gguf", small_config(), 1, metadata=metadata)
    with open_checkpoint(path) as checkpoint:
        arrays = {name: np.zeros(info.shape, np.float32) for name, info in checkpoint.tensors.items()}
        return dict(checkpoint.metadata), arrays


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_any_value_of_any_key(right: tuple[dict[str, Any], dict[str, Any]], data: st.DataObject) -> None:
    metadata, arrays = dict(right[0]), right[1]
    others = ["general.type", "qwen35.vocab_size"]
    scaling = ("type", "factor", "original_context_length", "yarn_beta_fast", "yarn_attn_factor", "yarn_log_multiplier")
    others += [f"qwen35.rope.scaling.{name}" for name in scaling]
    if data.draw(st.booleans()):
        metadata |= {"qwen35.rope.scaling.type": "yarn", "qwen35.rope.scaling.factor": 2.0}
    others += ["qwen35.attention.causal", "qwen35.unknown", "tokenizer.chat_template.default", "general.alignment"]
    for key in data.draw(st.lists(st.sampled_from([*metadata, *others]), min_size=1, max_size=3)):
        if data.draw(st.booleans()):
            metadata[key] = data.draw(values)
        else:
            metadata.pop(key, None)
    with in_time():
        try:
            config = parse_gguf_config(MemoryCheckpoint(arrays, path=PATH, metadata=metadata))
            for spec in gguf_specs(config):
                assert all(0 < size < 2**31 for size in spec.shape)
            assert 0 < config.rms_norm_eps <= 1
            assert config.attention.rotary_dim <= config.attention.head_dim
            RopeTable(config)
        except QwickError:
            pass
        if not metadata:
            return
        try:
            ChatTemplate.open(PATH, metadata, is_own=True)
            Tokenizer.open(PATH, metadata).encode("hello <|im_end|>", allow_special=True)
        except QwickError:
            pass
