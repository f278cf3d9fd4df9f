"""How far two runs are apart, and how far they may be."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

EPS_F32 = 2.0**-23
FACTOR = 20  # design page: at most 20 x the error of transformers' own f32 run


class ParityError(AssertionError):
    """`error` is relative to the reference's RMS, as `tolerance` is."""

    def __init__(self, what: str, error: float, tolerance: float) -> None:
        super().__init__(f"{what}: relative error {error:.2e}, at most {tolerance:.2e} is allowed")
        self.what, self.error, self.tolerance = what, error, tolerance


@dataclass(frozen=True)
class Error:
    """Relative to the reference's RMS over all rows: of all rows, and of the worst row."""

    total: float
    worst_row: float

    def tolerance(self, factor: float = FACTOR) -> "Error":
        """What a run may have when the library's f32 run has this; a few roundings are always free."""
        return Error(factor * max(self.total, EPS_F32), factor * max(self.worst_row, EPS_F32))


def as_f64(x: Tensor | np.ndarray) -> Tensor:
    return torch.as_tensor(x).double()


def relative_error(actual: Tensor | np.ndarray, expected: Tensor | np.ndarray) -> Error:
    a, e = as_f64(actual), as_f64(expected)
    assert a.shape == e.shape, f"{tuple(a.shape)} against {tuple(e.shape)}"
    scale = e.square().mean().sqrt()
    rows = (a - e).square().mean(-1)
    return Error(float(rows.mean().sqrt() / scale), float(rows.max().sqrt() / scale))


def check_close(what: str, actual: Tensor | np.ndarray, expected: Tensor | np.ndarray, allowed: Error) -> Error:
    """Raises ParityError; NaN is never close."""
    error = relative_error(actual, expected)
    if not error.total <= allowed.total:
        raise ParityError(what, error.total, allowed.total)
    if not error.worst_row <= allowed.worst_row:
        raise ParityError(f"{what}, worst row", error.worst_row, allowed.worst_row)
    return error


def check_logits(what: str, actual: Tensor | np.ndarray, expected: Tensor | np.ndarray, allowed: Error) -> Error:
    """Close, and the same winner wherever the two best are more than 10 tolerances apart."""
    error = check_close(what, actual, expected, allowed)
    a, e = as_f64(actual), as_f64(expected)
    top = e.topk(2, dim=-1).values
    sure = (top[:, 0] - top[:, 1]) > 10 * allowed.total * e.square().mean().sqrt()
    wrong = (a.argmax(-1) != e.argmax(-1)) & sure
    if wrong.any():
        raise ParityError(f"{what}: another winner in row {int(wrong.nonzero()[0])}", error.worst_row, allowed.total)
    return error


def kl_divergence(actual: Tensor | np.ndarray, expected: Tensor | np.ndarray) -> Tensor:
    """KL(expected || actual) of each row, in nats."""
    log_p, log_q = (as_f64(x).log_softmax(-1) for x in (expected, actual))
    return (log_p.exp() * (log_p - log_q)).sum(-1)
