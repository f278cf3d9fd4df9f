"""One network in every form it is published in: prefixes, shards, dtypes, flat configs. All load to the same bits."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from qwick.errors import ConfigError
from qwick.formats import F32
from qwick.ops.contract import Role
from tests.checkpoints import small_config, text_only, write_checkpoint
from tests.parity.backends import BEST_ISA, open_backend
from tests.parity.compare import relative_error
from tests.parity.network import CONFIGS, SEED, Piece, Runner, random_ids

CONFIG = CONFIGS["ratio2_untied"]
IDS = random_ids(40)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("files") / "plain", CONFIG, SEED)


@pytest.fixture(scope="module")
def expected(plain):
    return logits(plain)


def logits(folder):
    runner = Runner(folder, open_backend(BEST_ISA), max_len=64, num_slots=1)
    hidden = runner.one(Piece(0, IDS))
    if not runner.config.has_mtp:
        return [hidden.logits]
    draft = runner.one(Piece(0, IDS[1:], hidden=hidden.hidden[:-1]), "draft")
    return [hidden.logits, draft.logits]


def same(actual, expected):
    assert len(actual) == len(expected)
    assert all(np.array_equal(a, e) for a, e in zip(actual, expected, strict=True))


@pytest.mark.parametrize("prefix", ["model.", "language_model.model.", "language_model.", ""])
def test_every_published_prefix(tmp_path, expected, prefix):
    same(logits(write_checkpoint(tmp_path, CONFIG, SEED, prefix=prefix)), expected)


@pytest.mark.parametrize("shards", [2, 3, 7])
def test_shards(tmp_path, expected, shards):
    same(logits(write_checkpoint(tmp_path, CONFIG, SEED, shards=shards)), expected)


def test_a_flat_config_of_a_text_only_fine_tune(tmp_path, expected):
    same(logits(write_checkpoint(tmp_path, text_only(CONFIG), SEED, prefix="model.")), expected)


def test_a_base_model_with_vision_tower_and_no_mtp(tmp_path, expected):
    """Vision tensors are known and not read; without the block there is no draft program."""
    folder = write_checkpoint(tmp_path, CONFIG, SEED, mtp=False)
    rewrite(folder, lambda name, x: {name: x}, {"model.visual.patch_embed.proj.bias": np.ones(8, np.float32)})
    same(logits(folder), expected[:1])
    assert "draft" not in Runner(folder, open_backend(BEST_ISA)).programs


def test_mtp_tensors_below_the_trunks_prefix(tmp_path, expected):
    folder = write_checkpoint(tmp_path, CONFIG, SEED)
    rewrite(folder, lambda name, x: {name.replace("mtp.", "model.mtp.") if name.startswith("mtp.") else name: x})
    same(logits(folder), expected)


def test_a_tied_model_that_ships_its_head_again(tmp_path):
    config = CONFIGS["ratio1_tied"]
    folder = write_checkpoint(tmp_path, config, SEED)
    before = logits(folder)
    rewrite(folder, lambda name, x: {name: x}, {"lm_head.weight": np.zeros((500, 64), np.float32)})
    same(logits(folder), before)


def test_a_config_that_does_not_say_whether_it_is_tied(tmp_path, expected):
    """Some mirrors of the 9B leave the flag out: the head's tensor decides."""
    folder = write_checkpoint(tmp_path, CONFIG, SEED)
    config = json.loads((folder / "config.json").read_text())
    del config["tie_word_embeddings"], config["text_config"]["tie_word_embeddings"]
    (folder / "config.json").write_text(json.dumps(config))
    same(logits(folder), expected)


def test_f16_files_keep_their_values(tmp_path):
    """Decode rows see the exact f16 weights."""
    narrow, wide = (write_checkpoint(tmp_path / name, CONFIG, SEED) for name in ("f16", "f32"))
    rewrite(narrow, lambda name, x: {name: x.astype(np.float16)})
    rewrite(wide, lambda name, x: {name: x.astype(np.float16).astype(np.float32)})
    rows = Piece(0, IDS, role=Role.DECODE)
    stored, widened = (Runner(folder, open_backend(BEST_ISA)).one(rows).logits for folder in (narrow, wide))
    assert relative_error(stored, widened).total < 1e-5


def test_bf16_files_keep_their_values(tmp_path, expected):
    """As the released ones: bf16 matrices (A_log and the gated norm F32). Decode rows see the exact bf16 weights."""
    folder = write_checkpoint(tmp_path, CONFIG, SEED, dtype="BF16")
    rows = Piece(0, IDS, role=Role.DECODE)
    stored, widened = (Runner(folder, open_backend(name)).one(rows).logits for name in (BEST_ISA, "torch"))
    assert relative_error(stored, widened).total < 1e-5
    assert relative_error(stored, expected[0]).total > 1e-3


def test_refuses_a_config_that_the_kernels_cannot_run(tmp_path):
    folder = write_checkpoint(tmp_path, small_config(intermediate_size=176), SEED)
    with pytest.raises(ConfigError, match="intermediate_size = 176 is not a multiple of 32"):
        Runner(folder, open_backend(BEST_ISA))


def rewrite(folder, change, extra=None):
    """Change each tensor of model.safetensors: (name, array) -> {name: array}."""
    path = folder / "model.safetensors"
    tensors = {new: y for name, x in load_file(path).items() for new, y in change(name, x).items()}
    save_file(tensors | (extra or {}), path)


def test_f32_asked_for_is_f32_for_every_matrix(tmp_path):
    """The gates too, which follow no coarser format: then a prompt row of a BF16 file has f32 numerics throughout."""
    folder = write_checkpoint(tmp_path, CONFIG, SEED, dtype="BF16")
    actual, exact = (
        Runner(folder, open_backend(name), format=F32).one(Piece(0, IDS)).logits for name in (BEST_ISA, "torch")
    )
    assert relative_error(actual, exact).total < 1e-5
