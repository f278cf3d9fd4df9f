"""Greedy decoding with drafts, the same walk over two engines: qwick's programs and llama.cpp's contexts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from qwick.ops.contract import Role
from tests.parity.llama_cpp import Peer
from tests.parity.network import Piece, Runner


class Engine(Protocol):
    """Rows of logits and hidden states of one sequence; `start` is the place of the first token."""

    def trunk(self, ids: NDArray, start: int) -> Any: ...

    def draft(self, ids: NDArray, start: int, hidden: NDArray) -> Any:
        """The MTP block: token ids[i] at place start + i, hidden[i] of the place before. Later places are forgotten."""
        ...


class Ours:
    def __init__(self, runner: Runner, slot: int = 0) -> None:
        self.runner, self.slot = runner, slot

    def trunk(self, ids: NDArray, start: int) -> Any:
        return self.runner.one(Piece(self.slot, ids, start, Role.PROMPT if len(ids) > 1 else Role.DECODE))

    def draft(self, ids: NDArray, start: int, hidden: NDArray) -> Any:
        role = Role.PROMPT if len(ids) > 1 else Role.DECODE
        return self.runner.one(Piece(self.slot, ids, start - 1, role, hidden=hidden), "draft")


class Peers:
    """As common/speculative.cpp `draft-mtp` does it, but for its row 0, which joins the first token to zeros."""

    def __init__(self, peer: Peer) -> None:
        self.sequence, self.drafts = peer.sequence(), peer.drafts()

    def trunk(self, ids: NDArray, start: int) -> Any:
        return self.sequence.feed(ids, start)

    def draft(self, ids: NDArray, start: int, hidden: NDArray) -> Any:
        self.drafts.forget(start)
        return self.drafts.feed(ids, start, hidden)


@dataclass(frozen=True)
class Walk:
    """tokens [steps]; drafts [steps, length]: what was guessed for the places after each token."""

    tokens: NDArray[np.int64]
    drafts: NDArray[np.int64]

    @property
    def num_accepted(self) -> NDArray[np.int64]:
        """[steps - length]: how many of each step's drafts the network then chose itself."""
        steps, length = self.drafts.shape
        came = np.stack([self.tokens[i + 1 : i + 1 + length] for i in range(steps - length)])
        return np.cumprod(self.drafts[: steps - length] == came, axis=1).sum(axis=1)


def walk(engine: Engine, prompt: NDArray, steps: int, *, length: int = 3, repeats: bool = True) -> Walk:
    """Read `prompt`, then take the best token `steps` times, drafting `length` tokens after each.

    repeats False: the best of those not taken before; an untrained network would soon go in circles.
    """
    rows = engine.trunk(prompt, 0)
    engine.draft(prompt[1:], 1, rows.hidden[:-1])
    tokens: list[int] = []
    drafts: list[list[int]] = []
    for place in range(len(prompt), len(prompt) + steps):
        token = best(rows, () if repeats else tokens)
        tokens.append(token)
        guesses: list[int] = []
        guess, hidden = token, rows.hidden[-1:]
        for i in range(length):
            guessed = engine.draft(np.array([guess]), place + i, hidden)
            guess, hidden = best(guessed), guessed.hidden[-1:]
            guesses.append(guess)
        drafts.append(guesses)
        rows = engine.trunk(np.array([token]), place)
    return Walk(np.array(tokens), np.array(drafts))


def best(rows: Any, but: Sequence[int] = ()) -> int:
    logits = rows.logits[-1].copy()
    logits[list(but)] = -np.inf
    return int(np.argmax(logits))
