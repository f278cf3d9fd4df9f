"""The measurement: rounds in which every case, its limit and the peers have their turn, to see the same machine.

A round of one group (cases of one depth and thread count): ours and the limit, case by case, then each peer's. Rates
are tokens per second, of all sequences together.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from statistics import median
from time import perf_counter

import numpy as np

from qwick.bench.cases import Case, StepCost
from qwick.bench.limits import best_seconds
from qwick.bench.peers import Peer
from qwick.bench.sequences import STEP_TOKENS, Sequences
from qwick.model.model import Model
from qwick.ops.contract import Role
from qwick.ops.native import NativeBackend, NativeWeight, read_stream
from qwick.ops.product import Product

MAX_STREAM_BYTES = 1 << 30  # a longer stream is no faster, and memory is needed for the model
MIN_STREAM_BYTES = 64 << 10  # a toy's weights: what `read_stream` takes at least


@dataclass(slots=True)
class Figure:
    """A case and its rates by round.

    limits  of the same round: what the machine allows, from a read stream of a step's bytes (decode), or from one
            matrix product's speed (prompt)
    speeds  what they come from: bytes, or multiply-adds, per second
    loads   of the machine (runnable processes, one minute's average) before each
    peer_rates  by round, of each peer that can do the case, by what the user calls it
    """

    case: Case
    rates: list[float] = field(default_factory=list[float])
    limits: list[float] = field(default_factory=list[float])
    speeds: list[float] = field(default_factory=list[float])
    peer_rates: dict[str, list[float]] = field(default_factory=dict[str, list[float]])
    loads: list[float] = field(default_factory=list[float])

    @property
    def rate(self) -> float:
        return median(self.rates)

    @property
    def limit(self) -> float:
        return median(self.limits)

    @property
    def share(self) -> float:
        """Of the limit, of pairs of one round."""
        return median(rate / limit for rate, limit in zip(self.rates, self.limits, strict=True))

    @property
    def best_peer(self) -> str | None:
        """The one with the highest median: whom we are compared with."""
        return max(self.peer_rates, key=lambda peer: median(self.peer_rates[peer]), default=None)

    def ratio(self, peer: str) -> float:
        """Our median over a peer's."""
        return self.rate / median(self.peer_rates[peer])

    def ratios(self, peer: str) -> list[float]:
        """Of the pairs."""
        return [ours / theirs for ours, theirs in zip(self.rates, self.peer_rates[peer], strict=True)]


class Measurement:
    """On an opened model; the cache is the measurement's while it runs."""

    def __init__(
        self,
        model: Model[NativeWeight],
        cases: Sequence[Case],
        *,
        kv_format: str = "f16",
        peers: Mapping[str, Peer] | None = None,
    ) -> None:
        self.cost = StepCost.of_model(model, kv_format)
        self.sequences = Sequences(model, cases, kv_format)
        self.figures = [Figure(case) for case in cases]
        assert isinstance(model.backend, NativeBackend)  # of `open_model`
        self._backend, self._peers = model.backend, peers or {}
        self._product_weight = model.weight("layers.0.mlp.gate_proj")
        self._product = Product(self._backend, self._product_weight, STEP_TOKENS)

    @property
    def isa(self) -> str:
        """The instruction set that is measured."""
        return self._backend.isa

    def run(self, repeats: int, report: Callable[[str], None] | None = None) -> list[Figure]:
        """Warm up, then measure every case `repeats` times. `report` is told what comes next."""
        say = report or _say_nothing
        for figure in self.figures:
            say(f"warming up {figure.case.name}")
            self.prepare(figure.case)
            self.sequences.run(self.sequences.steps(figure.case)[:2])
        for number in range(1, repeats + 1):
            for group in self._groups():
                for figure in group:
                    say(f"round {number} of {repeats}: {figure.case.name}, {figure.case.threads} threads")
                    self._measure(figure)
                for called, peer in self._peers.items():
                    filling = ", which reads the whole context first" * (group[0].case.depth > 0)
                    say(f"round {number} of {repeats}: {peer.name}{filling}")
                    found = peer.measure([figure.case for figure in group])
                    for figure in group:
                        if figure.case in found:
                            figure.peer_rates.setdefault(called, []).append(found[figure.case])
        return self.figures

    def prepare(self, case: Case) -> None:
        """The threads of a case."""
        self._backend.set_threads(case.threads, case.threads)

    def _groups(self) -> Iterator[list[Figure]]:
        for _, group in groupby(self.figures, key=lambda figure: (figure.case.threads, figure.case.depth)):
            yield list(group)

    def _measure(self, figure: Figure) -> None:
        case = figure.case
        self.prepare(case)
        figure.loads.append(os.getloadavg()[0])
        steps = self.sequences.steps(case)
        begin = perf_counter()
        self.sequences.run(steps)
        figure.rates.append(case.total_tokens / (perf_counter() - begin))
        speed = self._product_speed(case) if case.is_prompt else self._stream_speed(case)
        figure.speeds.append(speed)
        needed = self.cost.prompt_madds if case.is_prompt else self.cost.decode_bytes(case) / case.batch
        figure.limits.append(speed / needed)

    def _stream_speed(self, case: Case) -> float:
        """Bytes per second; the best of three passes."""
        num_bytes = int(self.cost.decode_bytes(case))
        return read_stream(min(MAX_STREAM_BYTES, max(MIN_STREAM_BYTES, num_bytes)), case.threads, 0.0)

    def _product_speed(self, case: Case) -> float:
        """Multiply-adds per second of one matrix of the model with a step's rows; the best of three."""
        rows, cols = self._product_weight.shape
        x = np.ones((min(STEP_TOKENS, case.total_tokens), cols), np.float32)
        return len(x) * rows * cols / best_seconds(lambda: self._product(x, Role.PROMPT), seconds=0.0)


def _say_nothing(_: str) -> None:
    return
