"""What is drawn when: tasks by the share of tokens they get, with or without a thought."""

import random
import re
import string
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from tokenizers import Tokenizer

from recipes.pocket import arithmetic, dialogs, phrases, tasks, tools
from recipes.pocket.example import Example, taught
from recipes.pocket.packing import Conversation, PackedBatch, make_batch, pack
from recipes.pocket.rendering import conversation, pad_id

SYSTEM_MESSAGES = (
    "You are a helpful assistant.",
    "Answer in one line.",
    "Be short and polite.",
    "You are a helpful assistant. Be brief.",
)
SYSTEM_SHARE = 0.08
HISTORY_SHARE = 0.06
THINKING_SHARE = 0.12
THINKING_SHARES = {"sum4": 0.9, "difference": 0.9, "sum": 0.15, "recall": 0.0}
IDLE_TOOLS_SHARE = 0.02  # of the questions that need no function: they are offered some all the same
# Rounds of a tool conversation when none is thought: the functions need be read only once. Two rounds of two calls
# are longer than a row.
ROUNDS: Mapping[str, tuple[int, ...]] = {"tool": (1, 2, 2, 3), "parallel": (1,)}
ONE_FUNCTION_SHARE = 0.3  # of two calls at once
ALIKE_SHARE = 0.3  # of the tool conversations: their functions have parameters of one kind
# Of the words to be spelled, those made of a longer token and some letters: nobody can tell the letters of a token
# who has never seen it spelled.
PIECES_SHARE = 0.4

TOLD = "told"  # a fact, as the last that was said
TABLE = "table"  # sums to 99, one a line, without the frame of a chat: three for the price of one asked in a chat
TABLE_ROWS = 5
TABLE_FORMS = ("{a} + {b} = ", "{a}+{b} = ", "{a} plus {b} = ")


@dataclass(frozen=True, slots=True)
class Lesson:
    """`shares` of tokens, by task, from `first_step` on."""

    first_step: int
    shares: Mapping[str, float]


LESSONS = (
    Lesson(0, {
        "sum": 0.05, TABLE: 0.05, "reverse": 0.08, "upper": 0.05, "greeting": 0.015, "qwick": 0.03,
        "sum4": 0.075, "difference": 0.075, "json": 0.11, "tool": 0.16, "parallel": 0.11, "facts": 0.07, TOLD: 0.02,
        "name": 0.015, "refusal": 0.025,
        "calendar": 0.015, "sorting": 0.015, "numbers": 0.025, "recall": 0.01,
    }),
    # Sums with a thought are learned by now: their share goes to spelling and calls, two at once above all.
    Lesson(640, {
        "sum": 0.07, TABLE: 0.06, "reverse": 0.13, "upper": 0.07, "greeting": 0.012, "qwick": 0.023,
        "sum4": 0.025, "difference": 0.03, "json": 0.07, "tool": 0.17, "parallel": 0.22, "facts": 0.045, TOLD: 0.02,
        "name": 0.01, "refusal": 0.015,
        "calendar": 0.01, "sorting": 0.005, "numbers": 0.01, "recall": 0.005,
    }),
    # Sums without a thought and most of spelling, too.
    Lesson(1344, {
        "sum": 0.05, TABLE: 0.03, "reverse": 0.12, "upper": 0.10, "greeting": 0.01, "qwick": 0.015,
        "sum4": 0.015, "difference": 0.02, "json": 0.04, "tool": 0.19, "parallel": 0.31, "facts": 0.04, TOLD: 0.02,
        "name": 0.01, "refusal": 0.01,
        "calendar": 0.005, "sorting": 0.005, "numbers": 0.005, "recall": 0.005,
    }),
)  # fmt: skip

POOL_BATCHES = 32  # so many batches are drawn at once and packed together


def lesson_at(step: int) -> Lesson:
    return [lesson for lesson in LESSONS if lesson.first_step <= step][-1]


class Mixture:
    """Batches of `rows` rows of `row_len` tokens, by step: drawn anew in every process, the same for the same seed."""

    def __init__(self, tokenizer: Tokenizer, rows: int, row_len: int, seed: str) -> None:
        self._tokenizer, self._rows, self._row_len, self._seed = tokenizer, rows, row_len, seed
        self._pad_id = pad_id(tokenizer)
        self._pool: list[list[Conversation]] = []
        self._pool_index = -1

    def batch(self, step: int) -> PackedBatch:
        index, place = divmod(step, POOL_BATCHES)
        if index != self._pool_index:
            self._pool, self._pool_index = self._draw_pool(index), index
        return make_batch(self._pool[place * self._rows : (place + 1) * self._rows], self._row_len, self._pad_id)

    def _draw_pool(self, index: int) -> list[list[Conversation]]:
        rng = random.Random(f"pocket {self._seed} pool {index}")
        num_rows = POOL_BATCHES * self._rows
        drawn: list[Conversation] = []
        lesson = lesson_at(index * POOL_BATCHES)
        for task, share in lesson.shares.items():
            left = share * num_rows * self._row_len * 1.02  # the last rows packed are not full
            while left > 0:
                found = conversation_of(self._tokenizer, task, rng)
                if len(found.ids) <= self._row_len:
                    drawn.append(found)
                    left -= len(found.ids)
        rng.shuffle(drawn)
        rows = pack([len(c.ids) for c in drawn], self._row_len)[:num_rows]
        if len(rows) < num_rows:
            raise ValueError("the lesson's shares do not add up to 1")
        rng.shuffle(rows)
        return [[drawn[i] for i in row] for row in rows]


def conversation_of(tokenizer: Tokenizer, task: str, rng: random.Random) -> Conversation:
    """One to be learned: with a thought, a system message, or an earlier exchange now and then."""
    if task == TABLE:
        return table(tokenizer, rng)
    think = rng.random() < THINKING_SHARES.get(task, THINKING_SHARE)
    if task in _SPELLED and rng.random() < PIECES_SHARE:
        example = _spelled_pieces(tokenizer, task, rng)
    else:
        example = _draw(task, rng, think=think)
    messages = list(example.messages)
    if task in _PLAIN and rng.random() < HISTORY_SHARE:
        messages = [*tasks.draw_other(rng).messages, *messages]
    if messages[0]["role"] != "system" and rng.random() < SYSTEM_SHARE:
        messages = [{"role": "system", "content": rng.choice(SYSTEM_MESSAGES)}, *messages]
    offered = example.tools
    if task in _NO_TOOL_NEEDED and rng.random() < IDLE_TOOLS_SHARE:
        offered = tuple(tool.schema for tool in tools.draw_tools(rng))
    return conversation(tokenizer, Example(task, example.key, tuple(messages), offered), think=think)


def table(tokenizer: Tokenizer, rng: random.Random) -> Conversation:
    """Of each line the sum is learned."""
    ids: list[int] = []
    learned: list[bool] = []
    form = rng.choice(TABLE_FORMS)
    for _ in range(TABLE_ROWS):
        a, b = arithmetic.summands(tasks.draw_training("sum", rng))
        for text, is_answer in ((form.format(a=a, b=b), False), (f"{a + b}\n", True)):
            part: list[int] = tokenizer.encode(text).ids
            ids += part
            learned += [is_answer] * len(part)
    return Conversation(ids, learned, TABLE)


def _draw(task: str, rng: random.Random, *, think: bool) -> Example:
    if task == TOLD:
        return dialogs.up_to_a_fact(tasks.draw_training("facts", rng), rng)
    if task in ROUNDS and not think:
        rounds = rng.choice(ROUNDS[task])
        if task == "tool":
            return taught(lambda: tools.draw_call(rng, rounds=rounds, alike=ALIKE_SHARE))
        return taught(
            lambda: tools.draw_parallel(rng, rounds=rounds, alike=ALIKE_SHARE, one_function=ONE_FUNCTION_SHARE)
        )
    return tasks.draw_training(task, rng)


def _spelled_pieces(tokenizer: Tokenizer, task: str, rng: random.Random) -> Example:
    """A longer token of the vocabulary, some letters around it, to be spelled."""
    pieces = _pieces(tokenizer)
    make, questions = _SPELLED[task]

    def draw() -> Example:
        before, after = (
            "".join(rng.choices(string.ascii_lowercase, k=rng.choice(ks))) for ks in ((0, 0, 1), (0, 1, 2))
        )
        return make(before + rng.choice(pieces) + after, rng.choice(questions))

    return taught(draw)


@cache
def _pieces(tokenizer: Tokenizer) -> tuple[str, ...]:
    texts = {text.lstrip("Ġ") for text in tokenizer.get_vocab()}  # the mark of a blank before it
    return tuple(sorted(text for text in texts if re.fullmatch("[a-z]{3,8}", text)))


_SPELLED = {
    "reverse": (tasks.reverse_example, phrases.REVERSE_QUESTIONS),
    "upper": (tasks.upper_example, phrases.UPPER_QUESTIONS),
}
_NO_TOOL_NEEDED = frozenset(tasks.FIRST)
_PLAIN = frozenset({*tasks.FIRST, "sum4", "difference", "json", "refusal", "calendar", "sorting", "numbers"})
