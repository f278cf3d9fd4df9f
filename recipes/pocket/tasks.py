"""The tasks the pocket model learns: a registry of seeded generators, and what is held out of each."""

import random
from collections.abc import Callable, Mapping
from functools import cache

from recipes.pocket import arithmetic, dialogs, extras, phrases, records, tools
from recipes.pocket.entities import word
from recipes.pocket.example import Example, exchange, taught

Draw = Callable[[random.Random], Example]

# What is left of a closed set of inputs when one in ten is held out may be less than this.
NUM_HELD_OUT = 400
_TRIES = 40_000


def reverse_example(text: str, question: str) -> Example:
    found = exchange("reverse", "", question.format(word=text), text[::-1], f"I spell {text} from its end.")
    return Example("reverse", f"word {text}", found.messages)


def upper_example(text: str, question: str) -> Example:
    found = exchange("upper", "", question.format(word=text), text.upper(), f"I write {text} in capitals.")
    return Example("upper", f"word {text}", found.messages)


@cache
def greeting_examples() -> tuple[Example, ...]:
    found: dict[str, Example] = {}
    for greeting, answer in phrases.GREETINGS.items():
        for tail in phrases.GREETING_TAILS:
            for mark in phrases.GREETING_MARKS:
                for text in (greeting + tail + mark, (greeting + tail + mark).lower()):
                    found[text] = exchange("greeting", text, text, answer, "I answer politely.")
    return tuple(found.values())


@cache
def qwick_examples() -> tuple[Example, ...]:
    found: dict[str, Example] = {}
    for answer, questions in phrases.QWICK_TOPICS.items():
        for question in questions:
            for frame in phrases.QWICK_FRAMES:
                text = frame.format(q=question, Q=question[0].upper() + question[1:])
                found[text] = exchange("qwick", text, text, answer, "They ask about qwick.")
    return tuple(found.values())


def draw_other(rng: random.Random) -> Example:
    """A short question of any kind, to stand between others; never a held-out one."""
    draw = rng.choice(_SHORT)
    return taught(lambda: draw(rng))


# The first edition's five; then what the second must do; then what is reported as reached.
FIRST: Mapping[str, Draw] = {
    "sum": arithmetic.draw_easy_sum,
    "reverse": lambda rng: reverse_example(word(rng), rng.choice(phrases.REVERSE_QUESTIONS)),
    "upper": lambda rng: upper_example(word(rng), rng.choice(phrases.UPPER_QUESTIONS)),
    "greeting": lambda rng: rng.choice(greeting_examples()),
    "qwick": lambda rng: rng.choice(qwick_examples()),
}
MUST: Mapping[str, Draw] = {
    "sum4": arithmetic.draw_sum,
    "difference": arithmetic.draw_difference,
    "json": records.draw_record,
    "tool": tools.draw_call,
    "parallel": tools.draw_parallel,
    "facts": lambda rng: dialogs.draw_facts(rng, draw_other),
    "name": dialogs.draw_name,
    "refusal": dialogs.draw_refusal,
}
REPORTED: Mapping[str, Draw] = {
    "calendar": extras.draw_calendar,
    "sorting": extras.draw_sorting,
    "numbers": extras.draw_number,
    "recall": extras.draw_recall,
}
TASKS: Mapping[str, Draw] = {**FIRST, **MUST, **REPORTED}
_SHORT = (FIRST["sum"], FIRST["greeting"], FIRST["qwick"], FIRST["reverse"], MUST["refusal"], REPORTED["calendar"])


def draw_training(task: str, rng: random.Random) -> Example:
    """A random example of one task that is not held out."""
    return taught(lambda: TASKS[task](rng))


@cache
def held_out(task: str, most: int = NUM_HELD_OUT, seed: str = "held out") -> tuple[Example, ...]:
    """Up to `most` held-out examples with different questions, in an order that is `seed`'s."""
    rng = random.Random(f"{seed} {task}")
    found: dict[str, Example] = {}
    for _ in range(_TRIES):
        example = TASKS[task](rng)
        if example.held_out:
            found.setdefault(f"{example.key} {example.question}", example)
        if len(found) == most:
            break
    return tuple(found.values())
