"""The contract's numerics table in otherwise exact arithmetic: what rounding operands must cost."""

import numpy as np
import torch
import torch.nn.functional as F

from qwick.formats import F32, Family, widened
from qwick.ops.contract import Role
from qwick.ops.native import decode, encode
from qwick.ops.torch import TorchBackend, TorchOps, TorchStep
from tests.parity.network import Piece


class RoundingBackend(TorchBackend):
    """Weights of any format, dequantised, that remember their family."""

    def add_matrix(self, name, shape, format, windows, source=None):
        stored = ((first, through(rows, format, source)) for first, rows in windows)
        weight = super().add_matrix(name, shape, F32, stored)
        weight.family = format.family
        return weight


def through(rows, format, source):
    """f32 values that remain of rows after storing them in `format`."""
    values = decode(rows, source) if rows.dtype == np.uint8 else widened(rows)
    kept = rows.dtype == np.uint8 and source.family is format.family
    return values if kept else decode(encode(values, format), format)


class RoundingOps(TorchOps):
    """The contract's table: what happens to activations and weights before an exact product."""

    def __init__(self, role):
        super().__init__()
        self.role = role

    def linear(self, x, weights):
        return tuple(F.linear(*self._rounded(x, w)) for w in weights)

    def linear_add(self, x, weight, residual):
        return residual + F.linear(*self._rounded(x, weight))

    def gate_up(self, x, gate, up):
        return F.silu(F.linear(*self._rounded(x, gate))) * F.linear(*self._rounded(x, up))

    def head(self, x, table, step):
        wanted = x[torch.from_numpy(step.tokens.wanted_rows.astype(np.int64))]
        return F.linear(*self._rounded(wanted, table, Role.DECODE))

    def _rounded(self, x, weight, role=None):
        role = self.role if role is None else role
        half = weight.family in (Family.BF16, Family.F16)
        if weight.family is Family.F32 or (half and role is Role.DECODE):
            return x, weight
        if role is Role.PROMPT:
            return to_bf16(x), to_bf16(weight)
        return to_int8(x), weight


def to_bf16(x):
    return x.float().bfloat16().double()


def to_int8(x):
    """d = amax / 127 per 32, in f32."""
    blocks = x.float().unflatten(-1, (-1, 32))
    d = blocks.abs().amax(-1, keepdim=True) / 127
    quants = torch.where(d > 0, (blocks / d).round(), 0)
    return (quants * d).flatten(-2).double()


def modelled(runner, ids, role):
    batch = runner.batch([Piece(0, ids, role=role)])
    with torch.no_grad():
        return runner.network.forward(RoundingOps(role), TorchStep(batch, None, torch.float64)).head.numpy()
