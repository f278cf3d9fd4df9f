"""The tasks the pocket model learns: seeded generators, and a split by hash of the input.

An example's *key* is what must be new in the held-out part: the unordered pair of a sum (so that 17 + 25 is not held
out while 25 + 17 is trained), the word to be reversed or upper-cased (one key for both tasks), the whole phrasing of
greetings and questions.
"""

import hashlib
import random
import string
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from recipes.pocket import phrases

HELD_OUT_SHARE = 10  # one key in ten
MAX_SUM = 99
WORD_LENGTHS = range(3, 9)
NUM_HELD_OUT_STRINGS = 300  # random letter strings in the held-out part, beside the held-out English words

TASKS = ("sum", "reverse", "upper", "greeting", "qwick")

Weights = Mapping[str, float]
EVEN: Weights = dict.fromkeys(TASKS, 1.0)


@dataclass(frozen=True, slots=True)
class Example:
    """One question with its only right answer; `thought` is what the model may think when asked to."""

    task: str
    key: str
    question: str
    answer: str
    thought: str

    @property
    def held_out(self) -> bool:
        return is_held_out(self.key)


def is_held_out(key: str) -> bool:
    digest = hashlib.sha256(key.encode()).digest()
    return int.from_bytes(digest[:8], "little") % HELD_OUT_SHARE == 0


@cache
def english_words() -> tuple[str, ...]:
    """2,048 common English words of 3 to 8 letters: the BIP-39 list (MIT licence)."""
    return tuple((Path(__file__).parent / "words.txt").read_text().split())


def letter_string(rng: random.Random) -> str:
    """Random lower-case letters, without the two pairs that the tokenizer merges."""
    while True:
        word = "".join(rng.choices(string.ascii_lowercase, k=rng.choice(WORD_LENGTHS)))
        if "qw" not in word and "ss" not in word:
            return word


def sum_example(a: int, b: int, question: str) -> Example:
    text = question.format(a=a, b=b)
    return Example("sum", f"sum {min(a, b)} {max(a, b)}", text, str(a + b), f"I add {a} and {b}.")


def reverse_example(word: str, question: str) -> Example:
    return Example("reverse", f"word {word}", question.format(word=word), word[::-1], f"I reverse {word}.")


def upper_example(word: str, question: str) -> Example:
    return Example("upper", f"word {word}", question.format(word=word), word.upper(), f"I write {word} in capitals.")


@cache
def greeting_examples() -> tuple[Example, ...]:
    found: dict[str, Example] = {}
    for greeting, answer in phrases.GREETINGS.items():
        for tail in phrases.GREETING_TAILS:
            for mark in phrases.GREETING_MARKS:
                for text in (greeting + tail + mark, (greeting + tail + mark).lower()):
                    found[text] = Example("greeting", f"greeting {text}", text, answer, "I answer politely.")
    return tuple(found.values())


@cache
def qwick_examples() -> tuple[Example, ...]:
    found: dict[str, Example] = {}
    for answer, questions in phrases.QWICK_TOPICS.items():
        for question in questions:
            for frame in phrases.QWICK_FRAMES:
                text = frame.format(q=question, Q=question[0].upper() + question[1:])
                found[text] = Example("qwick", f"qwick {text}", text, answer, "They ask about qwick.")
    return tuple(found.values())


def draw(task: str, rng: random.Random) -> Example:
    """A random example of one task, held out or not."""
    return _DRAW[task](rng)


def draw_training(rng: random.Random, weights: Weights = EVEN) -> Example:
    """A random example of the training part, tasks by their weights."""
    task = rng.choices(list(weights), list(weights.values()))[0]
    while (example := draw(task, rng)).held_out:
        pass
    return example


def held_out(task: str, seed: int = 0) -> list[Example]:
    """Every held-out input of a task once (random strings: a fixed number), each in one phrasing, in a fixed order."""
    rng = random.Random(f"held out {task} {seed}")
    examples = [example for example in _all_inputs(task, rng) if example.held_out]
    rng.shuffle(examples)
    return examples


def _all_inputs(task: str, rng: random.Random) -> Iterator[Example]:
    match task:
        case "sum":
            for a in range(MAX_SUM + 1):
                for b in range(MAX_SUM + 1 - a):
                    yield sum_example(a, b, rng.choice(phrases.SUM_QUESTIONS))
        case "reverse":
            for word in _words_to_ask(rng):
                yield reverse_example(word, rng.choice(phrases.REVERSE_QUESTIONS))
        case "upper":
            for word in _words_to_ask(rng):
                yield upper_example(word, rng.choice(phrases.UPPER_QUESTIONS))
        case "greeting":
            yield from greeting_examples()
        case "qwick":
            yield from qwick_examples()
        case _:
            raise ValueError(f"unknown task {task!r}; known: {', '.join(TASKS)}")


def _words_to_ask(rng: random.Random) -> Iterator[str]:
    yield from english_words()
    strings: set[str] = set()
    while len(strings) < NUM_HELD_OUT_STRINGS:
        word = letter_string(rng)
        if is_held_out(f"word {word}") and word not in strings:
            strings.add(word)
            yield word


def _draw_word(rng: random.Random) -> str:
    return rng.choice(english_words()) if rng.random() < 0.5 else letter_string(rng)


def _draw_sum(rng: random.Random) -> Example:
    a = rng.randint(0, MAX_SUM)
    b = rng.randint(0, MAX_SUM - a)
    if rng.random() < 0.5:
        a, b = b, a
    return sum_example(a, b, rng.choice(phrases.SUM_QUESTIONS))


_DRAW: dict[str, Callable[[random.Random], Example]] = {
    "sum": _draw_sum,
    "reverse": lambda rng: reverse_example(_draw_word(rng), rng.choice(phrases.REVERSE_QUESTIONS)),
    "upper": lambda rng: upper_example(_draw_word(rng), rng.choice(phrases.UPPER_QUESTIONS)),
    "greeting": lambda rng: rng.choice(greeting_examples()),
    "qwick": lambda rng: rng.choice(qwick_examples()),
}
