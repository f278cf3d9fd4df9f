"""A folder or a GGUF file to GGUF: the right tensors, under the right names, and nothing half-done."""

import json
from pathlib import Path

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Type
from gguf import GGUFReader

from qwick.errors import CheckpointError, UsageError
from qwick.formats import FORMATS
from qwick.model.source import open_source
from qwick.ops import native
from qwick.quantize.convert import convert
from qwick.quantize.recipes import RECIPES
from tests.checkpoints import planned_tensors, small_config, text_only, write_checkpoint
from tests.gguf_model import everything, gguf_tensors, write_gguf
from tests.text.tokenizer_folder import write_folder

SEED = 11
WIDE = {"hidden_size": 256, "intermediate_size": 256, "linear_value_head_dim": 64}  # rows of 256; V/K ratio 2


def write_model(folder, config, **options):
    write_checkpoint(folder, config, SEED, **options)
    return write_folder(folder)


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("models") / "wide", small_config(**WIDE), dtype="BF16")


def converted(model: Path, path: Path, recipe: str, **options):
    with open_source(model) as source:
        return convert(source, path, RECIPES[recipe], threads=2, **options)


def tensors_of(path):
    return {t.name: t for t in GGUFReader(path).tensors}


def values_of(tensor):
    return gguf.dequantize(tensor.data, tensor.tensor_type).reshape(tensor.shape[::-1])


@pytest.mark.parametrize("mtp", [True, False])
@pytest.mark.parametrize(
    "sizes",
    [
        {},
        {"linear_num_value_heads": 2, "tie_word_embeddings": False},
        {"linear_num_value_heads": 6, "num_hidden_layers": 5},
    ],
)
def test_f32_files_hold_what_llama_cpps_converter_writes(tmp_path, sizes, mtp):
    config = small_config(**sizes)
    model = write_model(tmp_path / "model", config, mtp=mtp)
    converted(model, tmp_path / "x.gguf", "F32")
    found = tensors_of(tmp_path / "x.gguf")
    expected = dict(gguf_tensors(config["text_config"], SEED, mtp=mtp))
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert tuple(found[name].shape[::-1]) == values.shape, name
        np.testing.assert_array_equal(values_of(found[name]), values, err_msg=name)


def test_other_layouts_of_the_same_checkpoint_give_the_same_tensors(tmp_path, wide):
    config = small_config(**WIDE)
    plain = write_model(tmp_path / "wide", text_only(config), dtype="BF16", prefix="model.", shards=3)
    one, two = (converted(model, tmp_path / f"{i}.gguf", "Q4_K_M") for i, model in enumerate((wide, plain)))
    a, b = tensors_of(one.path), tensors_of(two.path)
    assert a.keys() == b.keys()
    assert all(a[name].data.tobytes() == b[name].data.tobytes() for name in a)


@pytest.mark.parametrize("recipe", RECIPES)
def test_each_tensor_has_its_recipes_type_and_the_encoders_bytes(tmp_path, wide, recipe):
    done = converted(wide, tmp_path / "x.gguf", recipe)
    with open_source(wide) as source:
        formats = RECIPES[recipe].formats(source.config)
    with open_source(tmp_path / "x.gguf") as file, open_source(wide) as source:
        for kept, spec in zip(file.specs, source.specs, strict=True):
            assert kept.name == spec.name
            wanted = formats.get(spec.name, FORMATS["f32"])
            assert file.info(kept).dtype == wanted.name.upper()
            if spec.matrix and wanted.is_blocks:
                rows = np.concatenate([rows for _, rows in source.windows(spec)])
                blocks = np.concatenate([blocks for _, blocks in file.windows(kept)])
                widened = (rows.astype(np.uint32) << 16).view(np.float32)
                np.testing.assert_array_equal(blocks, native.encode(widened, wanted))
    assert done.num_bytes == (tmp_path / "x.gguf").stat().st_size
    assert sum(done.tensors.values()) == len(tensors_of(tmp_path / "x.gguf"))


def test_windows_do_not_show_in_the_file(tmp_path, wide, monkeypatch):
    whole = converted(wide, tmp_path / "whole.gguf", "Q4_K_M").path
    monkeypatch.setattr("qwick.model.source.WINDOW_BYTES", 1)  # 16 rows at once
    pieces = converted(wide, tmp_path / "pieces.gguf", "Q4_K_M").path
    assert whole.read_bytes() == pieces.read_bytes()


def test_a_gguf_source_gives_the_same_file_as_its_folder(tmp_path, wide):
    bf16 = converted(wide, tmp_path / "bf16.gguf", "BF16").path
    direct = converted(wide, tmp_path / "direct.gguf", "Q4_K_M")
    through = converted(bf16, tmp_path / "through.gguf", "Q4_K_M")
    assert direct.path.read_bytes() == through.path.read_bytes()
    assert not direct.was_coarse
    assert not through.was_coarse


def test_the_format_it_has_already_is_copied(tmp_path, wide):
    one = converted(wide, tmp_path / "one.gguf", "Q4_K_M")
    two = converted(one.path, tmp_path / "two.gguf", "Q4_K_M")
    assert one.path.read_bytes() == two.path.read_bytes()
    assert not two.was_coarse


def test_blocks_become_other_blocks_by_way_of_their_values(tmp_path, wide):
    coarse = converted(wide, tmp_path / "q4.gguf", "Q4_0").path
    done = converted(coarse, tmp_path / "q8.gguf", "Q8_0")
    assert done.was_coarse
    before, after = tensors_of(coarse), tensors_of(done.path)
    name = "blk.0.ffn_up.weight"
    expected = gguf.quantize(values_of(before[name]), Type.Q8_0)
    np.testing.assert_array_equal(after[name].data, expected)
    assert not converted(coarse, tmp_path / "f32.gguf", "F32").was_coarse  # exact


def test_types_without_kernels_can_be_converted(tmp_path):
    keys = {"metadata": lambda writer: writer.add_name("other hands")}
    path = write_gguf(tmp_path / "tq2.gguf", small_config(**WIDE), SEED, everything(Type.TQ2_0), **keys)
    done = converted(path, tmp_path / "x.gguf", "Q8_0")
    assert done.was_coarse
    name = "blk.3.attn_k.weight"
    decoded = values_of(tensors_of(path)[name])
    np.testing.assert_array_equal(tensors_of(done.path)[name].data, gguf.quantize(decoded, Type.Q8_0))


def test_a_gguf_sources_keys_are_kept_but_for_those_of_its_file(tmp_path):
    def keys(writer):
        writer.add_name("other hands")
        writer.add_string("general.license", "apache-2.0")
        writer.add_string("quantize.imatrix.file", "/home/someone/imatrix")
        writer.add_file_type(7)
        writer.add_custom_alignment(64)
        writer.add_token_list(["a", "ü"])
        writer.add_token_scores([0.5, -1.0])
        writer.add_float32("custom.float", 0.25)
        writer.add_key_value("custom.flag", True, gguf.GGUFValueType.BOOL)

    path = write_gguf(tmp_path / "in.gguf", small_config(), SEED, everything(Type.Q8_0), metadata=keys)
    converted(path, tmp_path / "out.gguf", "BF16")
    before, after = (
        {name: (field.contents(), field.types) for name, field in GGUFReader(p).fields.items() if name[:5] != "GGUF."}
        for p in (path, tmp_path / "out.gguf")
    )
    gone = {"quantize.imatrix.file", "general.alignment"}
    assert before.keys() - after.keys() == gone
    assert after.pop("general.file_type")[0] == 32
    assert after.pop("general.quantization_version")[0] == 2
    assert after == {name: value for name, value in before.items() if name in after}


def test_the_vision_tower_is_left_out_and_named(tmp_path, wide):
    from safetensors.numpy import load_file, save_file

    folder = write_model(tmp_path / "wide", small_config(**WIDE), dtype="F32")
    tensors = load_file(folder / "model.safetensors")
    tensors["model.visual.patch_embed.proj.weight"] = np.zeros((4, 3, 2, 16, 16), np.float32)
    save_file(tensors, folder / "model.safetensors")
    done = converted(folder, tmp_path / "x.gguf", "F32")
    assert done.left_out == ("model.visual.patch_embed.proj.weight",)
    assert not any("visual" in name for name in tensors_of(done.path))


def test_progress_counts_the_sources_bytes(tmp_path, wide):
    seen = []
    done = converted(wide, tmp_path / "x.gguf", "Q8_0", progress=lambda *counts: seen.append(counts))
    counts, totals = zip(*seen, strict=True)
    assert list(counts) == sorted(counts)
    assert counts[-1] == totals[0] == done.source_bytes
    assert 8 < done.bits_per_weight < 10
    assert done.num_parameters == sum(
        int(np.prod(t.shape)) for t in planned_tensors(small_config(**WIDE)["text_config"], SEED, "model.")
    )


def test_a_source_that_ends_early_leaves_nothing(tmp_path, wide, monkeypatch):
    encode, calls = native.Encoder.encode, 0

    def failing(*arguments):
        nonlocal calls
        calls += 1
        if calls > 5:
            raise CheckpointError("became shorter while it was read")
        return encode(*arguments)

    monkeypatch.setattr(native.Encoder, "encode", failing)
    with pytest.raises(CheckpointError, match="shorter"):
        converted(wide, tmp_path / "x.gguf", "Q4_K_M")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_tokenizer_is_refused_before_anything_is_written(tmp_path):
    write_checkpoint(tmp_path / "model", small_config(), SEED)
    with pytest.raises(CheckpointError, match=r"tokenizer\.json is missing"):
        converted(tmp_path / "model", tmp_path / "x.gguf", "BF16")
    assert not (tmp_path / "x.gguf").exists()


def test_a_file_may_replace_its_own_source_when_asked(tmp_path, wide):
    path = converted(wide, tmp_path / "x.gguf", "BF16").path
    with pytest.raises(UsageError, match="exists"):
        converted(path, path, "Q8_0")
    converted(path, path, "Q8_0", overwrite=True)
    assert tensors_of(path)["token_embd.weight"].tensor_type == Type.Q8_0


def test_poisoned_weights_stay_visible(tmp_path):
    """A NaN in a checkpoint must not become an ordinary number in the file."""
    from safetensors.numpy import load_file, save_file

    folder = write_model(tmp_path / "model", small_config(**WIDE), dtype="F32")
    tensors = load_file(folder / "model.safetensors")
    tensors["model.language_model.layers.0.mlp.up_proj.weight"][3, 7] = np.nan
    save_file(tensors, folder / "model.safetensors")
    done = converted(folder, tmp_path / "x.gguf", "Q4_K_M")
    values = values_of(tensors_of(done.path)["blk.0.ffn_up.weight"])
    assert np.isnan(values[3]).all()
    assert np.isfinite(np.delete(values, 3, axis=0)).all()


def test_a_tokenizer_larger_than_the_model_is_refused(tmp_path):
    model = write_model(tmp_path / "model", small_config(vocab_size=64))
    with pytest.raises(CheckpointError, match="is not below the model's vocabulary of 64"):
        converted(model, tmp_path / "x.gguf", "BF16")


def test_the_folders_chat_template_goes_along(tmp_path):
    model = write_model(tmp_path / "model", small_config())
    (model / "chat_template.jinja").write_text("{{ messages }}")
    (model / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|im_end|>"}))
    converted(model, tmp_path / "x.gguf", "BF16")
    fields = GGUFReader(tmp_path / "x.gguf").fields
    assert fields["tokenizer.chat_template"].contents() == "{{ messages }}"
    eos = fields["tokenizer.ggml.eos_token_id"].contents()
    assert fields["tokenizer.ggml.tokens"].contents()[eos] == "<|im_end|>"
