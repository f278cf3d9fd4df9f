"""Examples as token batches: conversations rendered by the pocket template, loss on the answer alone."""

import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from recipes.pocket import phrases, tasks
from recipes.pocket.tasks import EVEN, Example, Weights

TEMPLATE_FILE = Path(__file__).parent / "chat_template.jinja"
END = "<|im_end|>"
PAD = "<|endoftext|>"

# Parts of the training conversations.
THINKING_SHARE = 0.10
SYSTEM_SHARE = 0.06
HISTORY_SHARE = 0.06

POOL_BATCHES = 32  # so many batches are drawn at once and sorted by length, so that little is padded


@dataclass(frozen=True, slots=True)
class Lesson:
    """What is drawn from `first_step` on: tasks by their weights, and a share of sum tables."""

    first_step: int
    weights: Weights
    table_share: float = 0.0


# Spelling is learned in some 300 steps. Sums take many more examples, so then they get most of the room, and tables:
# five sums in a row, of which every one teaches, at the price of one asked in a chat.
LESSONS = (
    Lesson(0, {"sum": 0.30, "reverse": 0.38, "upper": 0.12, "greeting": 0.06, "qwick": 0.14}),
    Lesson(320, {"sum": 0.55, "reverse": 0.15, "upper": 0.17, "greeting": 0.04, "qwick": 0.09}),
    Lesson(512, {"sum": 0.55, "reverse": 0.13, "upper": 0.20, "greeting": 0.04, "qwick": 0.08}, table_share=0.30),
)
TABLE_ROWS = 5
TABLE_FORMS = ("{a} + {b} = ", "{a}+{b} = ", "{a} plus {b} = ")
SUMMANDS = re.compile(r"\d+")


def lesson_at(step: int) -> Lesson:
    """The lesson of the pool that begins at `step`."""
    return [lesson for lesson in LESSONS if lesson.first_step <= step][-1]


@dataclass(frozen=True, slots=True)
class TrainingBatch:
    """`num` conversations of equal padded length.

    tokens          [num, length] int32
    trunk_rows      flat rows whose next token belongs to an answer, ascending; trunk_targets those tokens, int64
    draft_rows      flat rows whose next but one does; draft_targets
    trunk_sequences which conversation each trunk row belongs to
    """

    tokens: NDArray[np.int32]
    trunk_rows: NDArray[np.int32]
    trunk_targets: NDArray[np.int64]
    draft_rows: NDArray[np.int32]
    draft_targets: NDArray[np.int64]

    @property
    def trunk_sequences(self) -> NDArray[np.int32]:
        return self.trunk_rows // np.int32(self.tokens.shape[1])


@dataclass(frozen=True, slots=True)
class Conversation:
    """Token ids, and which of them are to be learned."""

    ids: list[int]
    learned: list[bool]


class Renderer:
    """Turns examples into conversations, as `qwick run` would send them."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True, autoescape=False)
        self._template = environment.from_string(TEMPLATE_FILE.read_text())

    def training(self, example: Example, rng: random.Random, weights: Weights = EVEN) -> Conversation:
        """With a system message, an earlier exchange, or thinking, now and then."""
        messages: list[dict[str, str]] = []
        if rng.random() < SYSTEM_SHARE:
            messages.append({"role": "system", "content": rng.choice(phrases.SYSTEM_MESSAGES)})
        if rng.random() < HISTORY_SHARE:
            earlier = tasks.draw_training(rng, weights)
            messages.append({"role": "user", "content": earlier.question})
            messages.append({"role": "assistant", "content": earlier.answer})
        return self._conversation(messages, example, thinking=rng.random() < THINKING_SHARE)

    def plain(self, example: Example) -> Conversation:
        return self._conversation([], example, thinking=False)

    def table(self, rng: random.Random) -> Conversation:
        """A column of sums, one a line, without the frame of a chat."""
        ids: list[int] = []
        learned: list[bool] = []
        form = rng.choice(TABLE_FORMS)
        for _ in range(TABLE_ROWS):
            while (example := tasks.draw("sum", rng)).held_out:
                pass
            a, b = SUMMANDS.findall(example.question)
            for text, is_answer in ((form.format(a=a, b=b), False), (f"{example.answer}\n", True)):
                part = self._tokenizer.encode(text).ids
                ids += part
                learned += [is_answer] * len(part)
        return Conversation(ids, learned)

    def _conversation(self, messages: list[dict[str, str]], example: Example, *, thinking: bool) -> Conversation:
        asked: list[dict[str, Any]] = [*messages, {"role": "user", "content": example.question}]
        prompt = self._template.render(messages=asked, add_generation_prompt=True, enable_thinking=thinking)
        answer = f"{example.thought}\n</think>\n\n{example.answer}" if thinking else example.answer
        prompt_ids, answer_ids = (self._tokenizer.encode(text).ids for text in (prompt, answer + END))
        return Conversation(prompt_ids + answer_ids, [False] * len(prompt_ids) + [True] * len(answer_ids))


def make_batch(conversations: Sequence[Conversation], pad_id: int) -> TrainingBatch:
    """Pad at the end, where a causal network cannot see it."""
    length = max(len(c.ids) for c in conversations)
    tokens = np.full((len(conversations), length), pad_id, np.int32)
    learned = np.zeros((len(conversations), length + 2), bool)
    for i, c in enumerate(conversations):
        tokens[i, : len(c.ids)] = c.ids
        learned[i, : len(c.ids)] = c.learned
    flat = tokens.reshape(-1).astype(np.int64)
    trunk_rows, draft_rows = (np.flatnonzero(learned[:, ahead : length + ahead]) for ahead in (1, 2))
    return TrainingBatch(
        tokens, trunk_rows.astype(np.int32), flat[trunk_rows + 1], draft_rows.astype(np.int32), flat[draft_rows + 2]
    )


def training_batches(
    tokenizer: Tokenizer, batch_size: int, pool: Callable[[int], random.Random]
) -> Iterator[TrainingBatch]:
    """Endless batches. Pool i is drawn with `pool(i)`, sorted by length, cut into batches, and these are shuffled."""
    renderer = Renderer(tokenizer)
    pad_id = tokenizer.token_to_id(PAD)
    index = 0
    while True:
        rng = pool(index)
        lesson = lesson_at(index * POOL_BATCHES)
        drawn = [_draw(renderer, lesson, rng) for _ in range(POOL_BATCHES * batch_size)]
        drawn.sort(key=lambda c: len(c.ids))
        batches = [drawn[i : i + batch_size] for i in range(0, len(drawn), batch_size)]
        rng.shuffle(batches)
        yield from (make_batch(batch, pad_id) for batch in batches)
        index += 1


def _draw(renderer: Renderer, lesson: Lesson, rng: random.Random) -> Conversation:
    if lesson.table_share and rng.random() < lesson.table_share:
        return renderer.table(rng)
    return renderer.training(tasks.draw_training(rng, lesson.weights), rng, lesson.weights)
