"""The embedded model's folder: made by the recipe as it is now, small enough for the wheel, read by qwick."""

import json

import pytest
from tokenizers import Tokenizer

from qwick.model.config import load_config
from qwick.model.load import load_network
from qwick.model.source import Source
from qwick.ops.torch import TorchBackend
from qwick.pocket import FOLDER
from qwick.weights.checkpoint import open_checkpoint
from recipes.pocket import folder
from recipes.pocket.folder import TEMPLATE_FILE
from recipes.pocket.network import model_config
from recipes.pocket.tokenizer import make_tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return make_tokenizer()


def test_its_small_files_are_the_recipe_s(tokenizer: Tokenizer):
    assert (FOLDER / "tokenizer.json").read_text() == tokenizer.to_str(pretty=True)
    assert (FOLDER / "chat_template.jinja").read_text() == TEMPLATE_FILE.read_text()
    for name, content in {
        "config.json": folder.config_json(tokenizer),
        "tokenizer_config.json": folder.tokenizer_config_json(tokenizer),
        "generation_config.json": folder.generation_config_json(tokenizer),
    }.items():
        assert json.loads((FOLDER / name).read_text()) == content


def test_it_is_small_and_nothing_else_lies_there():
    files = {path.name: path.stat().st_size for path in FOLDER.iterdir()}
    assert set(files) == {
        "chat_template.jinja", "config.json", "generation_config.json", "model.safetensors", "tokenizer.json",
        "tokenizer_config.json",
    }  # fmt: skip
    assert sum(files.values()) < 16 << 20


def test_its_tensors_are_the_network_s():
    config = load_config(FOLDER)
    assert config == model_config()
    with open_checkpoint(FOLDER) as checkpoint:
        network = load_network(Source.of_folder(checkpoint, config), TorchBackend())
    assert network.config == config
