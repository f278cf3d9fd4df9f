"""Files that qwick makes: the bytes of llama.cpp's converter, and llama.cpp runs them to the same answers."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import gguf
import numpy as np
import pytest

from qwick import pocket
from qwick.model.source import open_source
from qwick.quantize.convert import convert
from qwick.quantize.recipes import RECIPES, recipe_named
from qwick.text.chat_template import ChatTemplate
from qwick.text.tokenizer import Tokenizer
from tests.parity.backends import BEST_ISA, open_backend
from tests.parity.compare import relative_error
from tests.parity.gguf_oracle import open_oracle
from tests.parity.golden import GOLDEN, write_golden_folder
from tests.parity.greedy import Ours, Peers, walk
from tests.parity.llama_cpp import Library
from tests.parity.network import Piece, Runner

Convert = Callable[[str], Path]
IDS = np.random.default_rng(4).integers(0, 256, 40)
QUESTIONS = ("What is 17 + 25?", "Reverse the word lantern.", "Who are you?", "Write hello in capital letters.",
             "My dog is called Bello.", "Who won the world cup in 1990?")  # fmt: skip


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Convert:
    """The golden file's checkpoint by a recipe of ours."""
    folder = tmp_path_factory.mktemp("converted")
    write_golden_folder(folder / "checkpoint")

    @cache
    def make(recipe: str) -> Path:
        with open_source(folder / "checkpoint") as source:
            return convert(source, folder / f"{recipe}.gguf", recipe_named(recipe)).path

    return make


def tensors_of(path: Path) -> dict[str, gguf.ReaderTensor]:
    return {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}


@pytest.mark.parametrize("recipe", ["F32", "F16", "BF16", "Q8_0"])
def test_tensors_are_those_of_llama_cpps_converter_bit_for_bit(converted: Convert, recipe: str) -> None:
    """Wherever the golden file has the type: every vector, and matrices with and without a new order of heads."""
    ours, theirs = tensors_of(converted(recipe)), tensors_of(GOLDEN)
    assert ours.keys() == theirs.keys()
    same = [name for name in ours if ours[name].tensor_type == theirs[name].tensor_type]
    assert any(len(ours[name].shape) == 2 for name in same)
    for name in same:
        assert ours[name].shape.tolist() == theirs[name].shape.tolist()
        np.testing.assert_array_equal(ours[name].data.view(np.uint8), theirs[name].data.view(np.uint8), err_msg=name)


def test_keys_are_those_of_llama_cpps_converter(converted: Convert) -> None:
    ours, theirs = (
        {name: field.contents() for name, field in gguf.GGUFReader(path).fields.items() if not name.startswith("GGUF.")}
        for path in (converted("Q4_K_M"), GOLDEN)
    )
    del ours["general.name"], theirs["general.name"]  # of the folders
    assert (
        ours.pop("tokenizer.ggml.add_bos_token") is False
    )  # llama.cpp's writes it where tokenizer_config.json says so
    assert ours == theirs


@pytest.mark.peer
@pytest.mark.parametrize("recipe", RECIPES)
def test_llama_cpp_runs_them_right(library: Library, converted: Convert, recipe: str) -> None:
    """As near to exact arithmetic on the file's own weights as on files of its own."""
    exact = open_oracle(converted(recipe)).run(IDS).logits
    with library.open(converted(recipe)) as peer:
        theirs = relative_error(peer.sequence().feed(IDS, 0).logits, exact).total
    ours = relative_error(Runner(converted(recipe), open_backend(BEST_ISA)).one(Piece(0, IDS)).logits, exact).total
    print(f"{recipe}: llama.cpp {theirs:.2e}, qwick {ours:.2e}")
    assert theirs < {"F32": 5e-6, "F16": 3e-3, "BF16": 2e-2}.get(recipe, 0.1)
    assert ours < {"F32": 5e-6}.get(recipe, 2e-2)  # prompt rows: int16 for all others


@pytest.mark.peer
@pytest.mark.parametrize("recipe", ["BF16", "Q8_0", "Q4_K_M"])
def test_the_embedded_model_answers_alike_in_both(library: Library, tmp_path: Path, recipe: str) -> None:
    """Trained, so it is sure: the same tokens whatever the roundings, and nearly the same guesses of its MTP block."""
    with open_source(pocket.FOLDER) as source:
        file = convert(source, tmp_path / "pocket.gguf", recipe_named(recipe)).path
    tokenizer = Tokenizer.open(pocket.FOLDER)
    template = ChatTemplate.open(pocket.FOLDER, is_own=True)
    runner = Runner(file, open_backend(BEST_ISA))
    num_same = num_accepted = num_steps = 0
    for question in QUESTIONS:
        messages = [{"role": "user", "content": question}]
        pieces = template.render(messages, think=False, control_tokens=tokenizer.added_tokens)
        ids = np.array(tokenizer.encode_pieces(pieces))
        with library.open(file) as peer:
            assert peer.tokenize("".join(piece.text for piece in pieces)) == ids.tolist()
            theirs = walk(Peers(peer), ids, 20)
        ours = walk(Ours(runner), ids, 20)
        steps = next((i for i, token in enumerate(theirs.tokens) if token in tokenizer.stop_ids), 17)
        np.testing.assert_array_equal(ours.tokens[: steps + 1], theirs.tokens[: steps + 1])
        num_same += int((ours.num_accepted[:steps] == theirs.num_accepted[:steps]).sum())
        num_accepted += int((theirs.num_accepted[:steps] > 0).sum())
        num_steps += steps
    assert num_same >= (num_steps if recipe == "BF16" else 0.9 * num_steps)
    assert num_accepted > 0.9 * num_steps  # a block that guesses nothing would agree, too
