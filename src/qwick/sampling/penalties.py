"""What a sequence's own tokens do to its logits, kept up to date token by token."""

from collections.abc import Sequence

import numpy as np

from qwick.ops.contract import Float32, Int32
from qwick.sampling.params import SamplingParams


class Penalties:
    """The entries of `LogitEdits` for one sequence: its bias, and the penalties of the tokens it has seen.

    A push costs the same whatever was seen before; `entries` copies nothing. As vLLM counts: presence and frequency
    over generated tokens (`push`), repetition over the prompt as well.
    """

    def __init__(self, params: SamplingParams, prompt: Sequence[int]) -> None:
        self._params = params
        self._num_seen = len(prompt)
        bias = params.logit_bias
        known = dict.fromkeys(bias)
        if params.repetition_penalty != 1:
            known |= dict.fromkeys(prompt)
        self._index = {token_id: i for i, token_id in enumerate(known)}
        self._counts = [0] * len(known)
        self._ids = np.fromiter(known, np.int32, len(known))
        self._values = np.tile(np.array([0, 1, 0], np.float32), (len(known), 1))
        self._values[: len(bias), 0] = list(bias.values())
        if params.repetition_penalty != 1:
            self._values[[self._index[token_id] for token_id in set(prompt)], 1] = params.repetition_penalty

    @classmethod
    def of(cls, params: SamplingParams, prompt: Sequence[int]) -> "Penalties | None":
        """None when nothing is to be edited, now or later."""
        return cls(params, prompt) if params.has_penalties or params.logit_bias else None

    def push(self, token_id: int) -> None:
        """One more generated token."""
        self._num_seen += 1
        if not self._params.has_penalties:
            return
        at = self._index.get(token_id)
        if at is None:
            at = self._add(token_id)
        self._counts[at] += 1
        offset = -(self._params.frequency_penalty * self._counts[at] + self._params.presence_penalty)
        self._values[at, 1:] = self._params.repetition_penalty, offset

    def read(self, token_ids: Sequence[int]) -> None:
        """Push what is new of a sequence's tokens, the prompt among them."""
        for token_id in token_ids[self._num_seen :]:
            self.push(token_id)

    def entries(self) -> tuple[Int32, Float32]:
        """token_ids [n] and values [n, 3] as in `LogitEdits`; valid until the next push."""
        return self._ids[: len(self._counts)], self._values[: len(self._counts)]

    def _add(self, token_id: int) -> int:
        at = self._index[token_id] = len(self._counts)
        self._counts.append(0)
        if at == len(self._ids):
            more = max(64, at)
            self._ids = np.concatenate([self._ids, np.zeros(more, np.int32)])
            self._values = np.concatenate([self._values, np.tile(np.array([0, 1, 0], np.float32), (more, 1))])
        self._ids[at] = token_id
        return at
