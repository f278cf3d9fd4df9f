"""A GGUF file is the same network as the folder it was made of: config, places, transforms, logits."""

import dataclasses
from typing import Any

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Type

from qwick.errors import CheckpointError, ConfigError, FormatWarning
from qwick.formats import BF16, F32, Q8_0
from qwick.model.load import load_network, memory_bytes
from qwick.model.model import open_model
from qwick.model.source import open_source
from qwick.ops.torch import TorchBackend
from tests.checkpoints import small_config, write_checkpoint
from tests.gguf_model import everything, gguf_tensors, write_gguf
from tests.parity.backends import BEST_ISA, open_backend
from tests.parity.network import CONFIGS, SEED, Piece, Runner, random_ids

IDS = random_ids(40)


def logits(path, **options):
    runner = Runner(path, open_backend(BEST_ISA), max_len=64, num_slots=1, **options)
    hidden = runner.one(Piece(0, IDS))
    if not runner.config.has_mtp:
        return [hidden.logits]
    draft = runner.one(Piece(0, IDS[1:], hidden=hidden.hidden[:-1]), "draft")
    return [hidden.logits, draft.logits]


def same(actual, expected):
    assert len(actual) == len(expected)
    assert all(np.array_equal(a, e) for a, e in zip(actual, expected, strict=True))


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("mtp", [True, False])
def test_a_gguf_file_has_the_logits_and_drafts_of_the_folder(tmp_path, name, mtp):
    folder = write_checkpoint(tmp_path / "folder", CONFIGS[name], SEED, mtp=mtp)
    path = write_gguf(tmp_path / "model.gguf", CONFIGS[name], SEED, mtp=mtp)
    with open_source(folder) as wanted, open_source(path) as source:
        assert source.config == wanted.config
        assert [spec.name for spec in source.specs] == [spec.name for spec in wanted.specs]
    same(logits(path), logits(folder))


def test_bf16_and_f16_matrices_are_read_without_loss(tmp_path):
    config = small_config()
    network = {}
    for kind in (Type.F32, Type.BF16, Type.F16):
        path = write_gguf(tmp_path / "model.gguf", config, SEED, everything(kind))
        with open_source(path) as source:
            network[kind] = load_network(source, TorchBackend())
    for name, values in gguf_tensors(config["text_config"], SEED):
        if name == "blk.0.ffn_gate.weight":
            rounded = gguf.quants.dequantize(gguf.quants.quantize(values, Type.BF16), Type.BF16)
            assert np.array_equal(network[Type.BF16].weights["layers.0.mlp.gate_proj"].numpy(), rounded)
            half = values.astype(np.float16).astype(np.float32)
            assert np.array_equal(network[Type.F16].weights["layers.0.mlp.gate_proj"].numpy(), half)


class Told:
    """A backend that keeps what it is told."""

    def __init__(self) -> None:
        self.matrices: dict[str, Any] = {}

    def add_matrix(self, name, shape, format, windows, source=None):
        self.matrices[name] = (shape, format, list(windows), source)
        return name

    def add_vector(self, name, values):
        return name

    def read_files(self, progress=None):
        pass


def test_other_work_starts_when_only_matrices_are_left_to_read(tmp_path):
    order = []

    class Ordered(Told):
        def add_matrix(self, name, shape, format, windows, source=None):
            order.append("matrix")
            return name

        def read_files(self, progress=None):
            order.append("read")

    path = write_gguf(tmp_path / "model.gguf", small_config(), SEED)
    with open_source(path) as source:
        load_network(source, Ordered(), beside=lambda: order.append("beside"))
    assert order[-2:] == ["beside", "read"]
    assert order.count("beside") == 1


def test_blocks_reach_the_backend_as_the_file_has_them(tmp_path, monkeypatch):
    monkeypatch.setattr("qwick.model.source.WINDOW_BYTES", 5000)
    path = write_gguf(tmp_path / "model.gguf", small_config(), SEED, everything(Type.Q8_0))
    told = Told()
    with open_source(path) as source:
        load_network(source, told)
    tensor = next(t for t in gguf.GGUFReader(path).tensors if t.name == "blk.0.attn_qkv.weight")
    shape, format, windows, blocks = told.matrices["layers.0.linear_attn.in_proj_qkv"]
    assert (format, blocks) == (Q8_0, Q8_0)
    assert len(windows) > 1
    assert all(len(rows) % 16 == 0 for _, rows in windows[:-1])
    assert [first for first, _ in windows] == np.cumsum([0, *(len(rows) for _, rows in windows[:-1])]).tolist()
    assert np.array_equal(np.concatenate([rows for _, rows in windows]), np.asarray(tensor.data))
    assert shape == (len(tensor.data), 64)
    assert all(format == Q8_0 for _, format, _, _ in told.matrices.values())


def test_a_format_that_is_asked_for_spares_the_gates(tmp_path):
    path = write_gguf(tmp_path / "model.gguf", small_config(), SEED, everything(Type.BF16))
    for asked in (Q8_0, F32):
        told = Told()
        with open_source(path) as source:
            load_network(source, told, asked)
        gate = told.matrices["layers.0.linear_attn.in_proj_a"]
        assert gate[1] == (F32 if asked == F32 else BF16)
        assert told.matrices["embed_tokens"][1] == asked


def test_memory_is_known_before_it_is_taken(tmp_path):
    path = write_gguf(tmp_path / "model.gguf", small_config(), SEED, everything(Type.BF16))
    with open_source(path) as source:
        wanted = memory_bytes(source)
    model = open_model(path, threads=1)
    assert model.backend.weight_bytes == wanted


@pytest.mark.parametrize("kind", [Type.TQ1_0, Type.TQ2_0])
def test_types_without_a_kernel_are_decoded_with_a_warning(tmp_path, kind):
    config = small_config(hidden_size=256, intermediate_size=256)
    told = Told()
    pick = lambda name, values: kind if "ffn_down" in name else Type.F32  # noqa: E731
    path = write_gguf(tmp_path / "model.gguf", config, SEED, pick)
    warned = pytest.warns(FormatWarning, match=rf"model\.gguf: no kernel reads 5 of type {kind.name}.*MiB")
    with open_source(path) as source, warned:
        load_network(source, told)
    _, format, windows, blocks = told.matrices["layers.1.mlp.down_proj"]
    assert (format, blocks) == (BF16, None)
    tensor = next(t for t in gguf.GGUFReader(path).tensors if t.name == "blk.1.ffn_down.weight")
    wanted = gguf.quants.dequantize(tensor.data, kind)
    assert np.array_equal(np.concatenate([rows for _, rows in windows]), wanted)


def test_an_mtp_block_without_a_norm_of_its_own_takes_the_trunk_s(tmp_path):
    def written(path, extra=(), without=()):
        text = small_config()["text_config"]
        return rewritten(path, [*((n, v) for n, v in gguf_tensors(text, SEED) if n not in without), *extra])

    with open_source(written(tmp_path / "a.gguf", without=["blk.4.nextn.shared_head_norm.weight"])) as source:
        assert source.files["mtp.norm"] == "output_norm.weight"
    own = ("blk.4.nextn.embed_tokens.weight", np.zeros((512, 64), np.float32))
    with pytest.raises(CheckpointError, match=r"nextn\.embed_tokens.*of its own is not implemented"):
        open_source(written(tmp_path / "b.gguf", extra=[own]))


def rewritten(path, tensors=None, change=lambda writer: None):
    """A small model's file with other tensors, or with keys changed."""
    from tests.gguf_model import add_config

    writer = gguf.GGUFWriter(path, "qwen35")
    text = small_config()["text_config"]
    add_config(writer, text, mtp=True)
    change(writer)
    for name, values in gguf_tensors(text, SEED) if tensors is None else tensors:
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize(
    ("missing", "extra", "reason"),
    [
        ("blk.1.ssm_out.weight", None, r"1 tensors are missing: blk\.1\.ssm_out\.weight"),
        ("blk.4.nextn.hnorm.weight", None, r"1 tensors are missing: blk\.4\.nextn\.hnorm\.weight"),
        (None, "blk.0.attn_q.weight", r"1 tensors have no place in this network: blk\.0\.attn_q\.weight"),
        (None, "blk.2.ffn_up.scale", r"no place in this network: blk\.2\.ffn_up\.scale"),
    ],
)
def test_names_what_is_missing_and_what_has_no_place(tmp_path, missing, extra, reason):
    tensors = [(n, v) for n, v in gguf_tensors(small_config()["text_config"], SEED) if n != missing]
    if extra:
        tensors.append((extra, np.zeros(64, np.float32)))
    with pytest.raises(CheckpointError, match=reason):
        open_source(rewritten(tmp_path / "model.gguf", tensors))


def test_an_mtp_block_alone_is_no_model(tmp_path):
    tensors = [t for t in gguf_tensors(small_config()["text_config"], SEED) if t[0].startswith(("blk.4.", "token"))]
    with pytest.raises(CheckpointError, match="an MTP block alone; give the GGUF file of the whole model"):
        open_source(rewritten(tmp_path / "mtp-model.gguf", tensors))


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("general.architecture", "llama", r"architecture 'llama'; qwick runs 'qwen35'"),
        ("general.architecture", "clip", r"the vision part \(mmproj\)"),
        ("general.type", "mmproj", r"the vision part \(mmproj\)"),
        ("general.type", "adapter", r"a part of a model \('adapter'\)"),
        ("qwen35.rope.scaling.type", "yarn", r"lacks 'rope\.scaling\.factor'"),
        ("qwen35.rope.scaling.type", "longrope", r"rope scaling \('longrope', factor 0\.0\) is not implemented"),
        ("qwen35.rope.scaling.factor", 4.0, r"rope scaling \('none', factor 4\.0\) is not implemented"),
        ("qwen35.attention.causal", False, r"attention\.causal = False"),
        ("qwen35.attention.sliding_window", 512, r"qwen35\.attention\.sliding_window = 512 is a key"),
        ("qwen35.attention.value_length", 32, r"attention\.value_length must be attention\.key_length, 64"),
        ("qwen35.attention.head_count", 3, r"3 query heads are not a multiple of 2 kv heads"),
        ("qwen35.attention.head_count", "four", r"attention\.head_count = 'four' is not a whole number"),
        ("qwen35.ssm.inner_size", 127, r"ssm\.inner_size = 127 is not a multiple of its 4 heads"),
        ("qwen35.ssm.group_count", 0, r"ssm\.group_count = 0 is not a whole number"),
        ("qwen35.rope.dimension_sections", [3, 3], r"rope\.dimension_sections must be three numbers"),
        ("qwen35.rope.dimension_sections", [3, 3, 9, 0], r"mrope_section \[3, 3, 9\] does not add up"),
        ("qwen35.attention.recurrent_layers", [True], r"recurrent_layers is not one flag per block"),
        ("qwen35.attention.recurrent_layers", [True] * 5, r"has the MTP block linear"),
        ("qwen35.block_count", 1, r"block_count = 1 is not a whole number from 2"),
        ("qwen35.nextn_predict_layers", 2, r"nextn_predict_layers = 2"),
        ("qwen35.vocab_size", 513, r"vocab_size is not the 512 rows of token_embd"),
        ("qwen35.attention.layer_norm_rms_epsilon", float("nan"), r"layer_norm_rms_epsilon = nan is not a number"),
    ],
)
def test_names_the_key_it_cannot_follow(tmp_path, key, value, reason):
    def change(writer):
        writer.kv_data[0].pop(key, None)
        kinds = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}
        kinds.get(type(value), writer.add_array)(key, value)

    with pytest.raises((ConfigError, CheckpointError), match=reason):
        open_source(rewritten(tmp_path / "model.gguf", change=change))


REQUIRED = (
    "block_count context_length embedding_length feed_forward_length attention.head_count attention.head_count_kv "
    "attention.key_length attention.layer_norm_rms_epsilon rope.dimension_count rope.dimension_sections "
    "ssm.conv_kernel ssm.state_size ssm.group_count ssm.time_step_rank ssm.inner_size"
).split()


@pytest.mark.parametrize("key", REQUIRED)
def test_names_the_key_that_is_missing(tmp_path, key):
    path = rewritten(tmp_path / "model.gguf", change=lambda writer: writer.kv_data[0].pop(f"qwen35.{key}"))
    with pytest.raises(ConfigError, match=key.replace(".", r"\.")):
        open_source(path)


def test_keys_of_features_that_are_off_and_numbers_for_each_block_are_taken(tmp_path):
    def change(writer):
        for name in ("expert_count", "attention.sliding_window", "pooling_type"):
            writer.add_uint32(f"qwen35.{name}", 0)
        writer.add_float32("qwen35.logit_scale", 0.0)
        writer.add_bool("qwen35.use_parallel_residual", False)
        writer.add_string("qwen35.rope.scaling.type", "none")
        writer.add_uint32("qwen35.rope.scaling.original_context_length", 8192)
        writer.kv_data[0].pop("qwen35.attention.head_count")
        writer.add_array("qwen35.attention.head_count", [4] * 5)
        writer.add_uint32("qwen35.vocab_size", 512)

    with open_source(rewritten(tmp_path / "a.gguf", change=change)) as source:
        changed = source.config
    with open_source(rewritten(tmp_path / "b.gguf")) as source:
        assert changed == source.config
    assert dataclasses.asdict(changed)["tie_word_embeddings"] is True
