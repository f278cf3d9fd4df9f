"""One walk over everything a sequence can go through, in parts that are each compared with the oracle."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from qwick.ops.contract import Role
from tests.parity.compare import Error, ParityError, check_close
from tests.parity.network import Piece, Runner

PROMPT_LEN = 65
TOTAL_LEN = 90


def walk(runner: Runner, ids: NDArray[np.integer]) -> dict[str, NDArray]:
    """Logits of each part, over `ids` [TOTAL_LEN]."""
    first, other = runner.run(Piece(0, ids[:30], snapshots=((17, 3),)), Piece(1, ids[:1]))
    rest = runner.one(Piece(0, ids[30:PROMPT_LEN], 30))
    decoded = [runner.one(Piece(0, ids[i : i + 1], i, Role.DECODE)).logits for i in range(PROMPT_LEN, 70)]
    verified = runner.one(Piece(0, ids[70:74], 70, Role.DECODE, commit=False)).logits
    runner.commit(0, 3, 70)
    return {
        "prompt": first.logits,
        "neighbour": other.logits,
        "second chunk": rest.logits,
        "decode": np.concatenate(decoded),
        "verify": verified,
        "after commit": runner.one(Piece(0, ids[73:TOTAL_LEN], 73)).logits,
        "snapshot": runner.one(Piece(3, ids[17:60], 17, pages_of=0)).logits,
        **drafts(runner, ids),
    }


def drafts(runner: Runner, ids: NDArray[np.integer]) -> dict[str, NDArray]:
    """The MTP block on the runner's own hidden state: two chunks, a chained step; then the trunk goes on."""
    hidden = np.asarray(runner.one(Piece(2, ids[:41])).hidden, np.float32)
    fill = runner.one(Piece(2, ids[1:31], hidden=hidden[:30]), "draft")
    step = runner.one(Piece(2, ids[31:42], 30, hidden=hidden[30:]), "draft")
    last = np.asarray(step.hidden[-1:], np.float32)
    chained = runner.one(Piece(2, ids[42:43], 41, Role.DECODE, hidden=last), "draft")
    after = runner.one(Piece(2, ids[41:50], 41))
    return {
        "draft prompt": fill.logits,
        "draft step": step.logits,
        "draft chained": chained.logits,
        "trunk after drafts": after.logits,
    }


def compare(actual: Mapping[str, NDArray], expected: Mapping[str, NDArray], allowed: Error) -> float:
    """Raises the ParityError of the worst part; returns the largest error relative to what is allowed."""
    failures: list[ParityError] = []
    worst = 0.0
    for what, rows in expected.items():
        try:
            worst = max(worst, check_close(what, actual[what], rows, allowed).total / allowed.total)
        except ParityError as failure:
            failures.append(failure)
    if failures:
        raise max(failures, key=lambda failure: failure.error / failure.tolerance)
    return worst
