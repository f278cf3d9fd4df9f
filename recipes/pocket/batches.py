"""Examples as token batches: conversations rendered by the pocket template, loss on the answer alone."""

import random
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


# (first step, weights): spelling first, which is learned in some 300 steps; sums take longer, and most of the rest.
LESSONS: tuple[tuple[int, Weights], ...] = (
    (0, {"sum": 0.30, "reverse": 0.38, "upper": 0.12, "greeting": 0.06, "qwick": 0.14}),
    (320, {"sum": 0.55, "reverse": 0.15, "upper": 0.17, "greeting": 0.04, "qwick": 0.09}),
)


def task_weights(step: int) -> Weights:
    """The tasks' shares of the pool that begins at `step`."""
    return [weights for first, weights in LESSONS if first <= step][-1]


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
    """Token ids, of which the last `answer_len` are to be learned."""

    ids: list[int]
    answer_len: int


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

    def _conversation(self, messages: list[dict[str, str]], example: Example, *, thinking: bool) -> Conversation:
        asked: list[dict[str, Any]] = [*messages, {"role": "user", "content": example.question}]
        prompt = self._template.render(messages=asked, add_generation_prompt=True, enable_thinking=thinking)
        answer = f"{example.thought}\n</think>\n\n{example.answer}" if thinking else example.answer
        prompt_ids, answer_ids = (self._tokenizer.encode(text).ids for text in (prompt, answer + END))
        return Conversation(prompt_ids + answer_ids, len(answer_ids))


def make_batch(conversations: Sequence[Conversation], pad_id: int) -> TrainingBatch:
    """Pad at the end, where a causal network cannot see it."""
    length = max(len(c.ids) for c in conversations)
    tokens = np.full((len(conversations), length), pad_id, np.int32)
    learned = np.zeros((len(conversations), length + 2), bool)
    for i, c in enumerate(conversations):
        tokens[i, : len(c.ids)] = c.ids
        learned[i, len(c.ids) - c.answer_len : len(c.ids)] = True
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
        weights = task_weights(index * POOL_BATCHES)
        drawn = [
            renderer.training(tasks.draw_training(rng, weights), rng, weights) for _ in range(POOL_BATCHES * batch_size)
        ]
        drawn.sort(key=lambda c: len(c.ids))
        batches = [drawn[i : i + batch_size] for i in range(0, len(drawn), batch_size)]
        rng.shuffle(batches)
        yield from (make_batch(batch, pad_id) for batch in batches)
        index += 1
