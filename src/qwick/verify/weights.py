"""Weights: memory holds what the file says, and the kernels multiply what memory holds.

The error of a product is given relative to the operands' norms, sqrt(sum (x w)^2), and bounded from the operands
themselves, by the roundings of `ops/contract.py` and nothing else: an operand quantised with a step d, of 32 or 512
columns, moves by d / sqrt(12); many such products are independent. `SLACK` is the margin.
"""

from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from qwick.formats import Family
from qwick.model.names import TensorSpec
from qwick.ops.contract import Float32, Role
from qwick.ops.product import Gather, Product
from qwick.verify.report import Check, failed, holds, within
from qwick.verify.subject import Subject

SLACK = 1.5
ROWS_EACH = 48  # of each matrix: compared with the file
COLUMNS_EACH = 64  # outputs of a product that are computed again
NUM_INPUTS = 17  # rows multiplied: more than one tile of them
SHAPES_EACH = 4  # matrices of different shapes, for each family
_PANEL_LEN, _PANEL_TOP = 512, 2047  # prompt rows: columns with a common step, and how many steps their largest has
_FLOAT_FAMILIES = (Family.F32, Family.BF16, Family.F16)


def memory_checks(subject: Subject) -> Iterator[Check]:
    """For each family: sampled rows of every matrix equal the file's, decoded without the layout of memory."""
    group = "memory equals the file"
    rng = np.random.default_rng(1)
    compared: defaultdict[Family, list[int]] = defaultdict(lambda: [0, 0])
    wrong: defaultdict[Family, list[str]] = defaultdict(list)
    for spec in subject.matrices:
        family = subject.family(spec)
        rows = _sample(rng, spec.shape[0], ROWS_EACH)
        in_memory = Gather(subject.backend, subject.weight(spec), len(rows))(rows.astype(np.int32))
        in_file = subject.file_rows(spec, rows)
        bad = rows[~_same_bits(in_memory, in_file).all(axis=1)]
        compared[family][0] += 1
        compared[family][1] += len(rows)
        wrong[family] += [f"{spec.name} row {bad[0]}"] if len(bad) else []
    for family, (matrices, rows_seen) in compared.items():
        if wrong[family]:
            yield failed(group, family, _listed(wrong[family]))
        else:
            yield holds(group, family, True, f"{rows_seen:,} rows of {matrices} matrices, bit for bit")
    bad_vectors = [spec.name for spec in subject.vectors if not _same_vector(subject, spec)]
    detail = _listed(bad_vectors) if bad_vectors else f"all {len(subject.vectors)} norms, taps and gates' constants"
    yield holds(group, "vectors", not bad_vectors, detail)


def kernel_checks(subject: Subject) -> Iterator[Check]:
    """For each family and role: the kernels against f64 products of the file's rows."""
    rng = np.random.default_rng(2)
    for family, specs in _by_family(subject).items():
        for role in Role:
            worst = max((_product_error(subject, spec, role, rng) for spec in specs), key=lambda e: e.figure / e.bound)
            label = f"{family}, {role.name.lower()} rows"
            yield within("kernels", label, worst.figure, worst.bound, f"worst of {len(specs)}: {worst.name}")


class _Error(NamedTuple):
    name: str
    figure: float
    bound: float


def _product_error(subject: Subject, spec: TensorSpec, role: Role, rng: np.random.Generator) -> _Error:
    """Rows of activations with outliers, as real ones have."""
    outputs, k = spec.shape
    columns = _sample(rng, outputs, COLUMNS_EACH)
    x = (rng.standard_normal((NUM_INPUTS, k)) * np.exp(rng.standard_normal((1, k)))).astype(np.float32)
    got = Product(subject.backend, subject.weight(spec), NUM_INPUTS)(x, role)[:, columns].astype(np.float64)
    wide, w = x.astype(np.float64), subject.file_rows(spec, columns).astype(np.float64)
    norm = np.sqrt((wide**2 @ (w**2).T).sum())
    figure = float(np.linalg.norm(got - wide @ w.T) / norm) if norm else float(np.linalg.norm(got))
    return _Error(spec.name, figure, _bound(subject.family(spec), role, wide, w, norm))


def _bound(family: Family, role: Role, x: NDArray[np.float64], w: NDArray[np.float64], norm: float) -> float:
    """Of the relative error; the last term is f32 sums over k."""
    sums = 2.0**-24 * x.shape[1] ** 0.5
    if role == Role.PROMPT and family != Family.F32:
        # Blocks: from their scales, not all codes of which occur, and each scale is rounded, too.
        of_x, of_w = _steps(x, _PANEL_LEN, _PANEL_TOP), 2 * _steps(w, _PANEL_LEN, _PANEL_TOP)
        moved = (of_x**2 @ (w**2).T + x**2 @ (of_w**2).T).sum() / 12
        return SLACK * (float(np.sqrt(moved)) / max(norm, 1e-30) + sums)
    if role == Role.DECODE and family not in _FLOAT_FAMILIES:
        moved = (_steps(x, 32, 127) ** 2 @ (w**2).T).sum() / 12
        return SLACK * (float(np.sqrt(moved)) / max(norm, 1e-30) + sums)
    return SLACK * 4 * sums


def _steps(x: NDArray[np.float64], together: int, top: int) -> NDArray[np.float64]:
    """Of each value of x [n, k]: the largest of its `together` columns, a `top`-th of it."""
    parts = [np.abs(x[:, at : at + together]) for at in range(0, x.shape[1], together)]
    return np.concatenate([np.broadcast_to(p.max(axis=1, keepdims=True) / top, p.shape) for p in parts], axis=1)


def _by_family(subject: Subject) -> dict[Family, list[TensorSpec]]:
    """For each family, matrices of different shapes: the first of each, largest first."""
    chosen: defaultdict[Family, dict[tuple[int, ...], TensorSpec]] = defaultdict(dict)
    for spec in subject.matrices:
        chosen[subject.family(spec)].setdefault(spec.shape, spec)
    largest = {family: sorted(by.values(), key=lambda s: -s.shape[0] * s.shape[1]) for family, by in chosen.items()}
    return {family: specs[:SHAPES_EACH] for family, specs in largest.items()}


def _sample(rng: np.random.Generator, count: int, most: int) -> NDArray[np.int64]:
    """First, last and random rows, ascending."""
    if count <= most:
        return np.arange(count)
    drawn = rng.choice(np.arange(1, count - 1), most - 2, replace=False)
    return np.sort(np.concatenate([[0, count - 1], drawn]))


def _same_bits(a: Float32, b: Float32) -> NDArray[np.bool_]:
    """Equal, or both NaN; 0 and -0 are the same."""
    return (a == b) | (np.isnan(a) & np.isnan(b))


def _same_vector(subject: Subject, spec: TensorSpec) -> bool:
    in_memory, in_file = subject.vector(spec), subject.file_vector(spec)
    return in_memory.size == in_file.size and bool(_same_bits(in_memory.ravel(), in_file.ravel()).all())


def _listed(names: list[str], most: int = 3) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return "differs: " + ", ".join(names[:most]) + more
