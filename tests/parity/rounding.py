"""The contract's numerics table in otherwise exact arithmetic: what rounding operands must cost.

`bf16`: prompt rows as AMX has them, not in integers.
"""

import numpy as np
import torch
import torch.nn.functional as F

from qwick._kernels import leaves
from qwick.formats import F32, Family, widened
from qwick.ops.contract import Role
from qwick.ops.native import NativeBackend, decode, encode
from qwick.ops.torch import TorchBackend, TorchOps, TorchStep
from tests.parity.network import Piece


class RoundingBackend(TorchBackend):
    """Weights of any format, dequantised, that remember their family and know what prompt rows see of them."""

    def __init__(self, dtype):
        super().__init__(dtype)
        self._native = NativeBackend(1)

    def add_matrix(self, name, shape, format, windows, source=None):
        windows = list(windows)
        stored = ((first, through(rows, format, source)) for first, rows in windows)
        weight = super().add_matrix(name, shape, F32, stored)
        weight.family = format.family
        tensor = self._native.add_matrix(name, shape, format, windows, source) if format.is_blocks else None

        def of_prompts(*, bf16):
            if bf16:
                return to_bf16(weight)
            return to_panel_ints(weight) if tensor is None else torch.from_numpy(panel_values(tensor, shape))

        weight.of_prompts = of_prompts
        return weight


def panel_values(tensor, shape):
    """f64 values of the integers that weights of blocks become, by definition (codec/panel.h) on every CPU alike."""
    out = np.empty(shape)
    for row in range(0, shape[0], 16):
        for k in range(0, shape[1], 512):
            codes, scales = leaves.decode_panel("scalar", tensor, row, k, min(512, shape[1] - k))
            place = out[row : row + 16, k : k + 512]
            place[:] = (codes * scales.astype(np.float64)).T[: len(place)]
    return out


def through(rows, format, source):
    """f32 values that remain of rows after storing them in `format`."""
    values = decode(rows, source) if rows.dtype == np.uint8 else widened(rows)
    kept = rows.dtype == np.uint8 and source.family is format.family
    return values if kept else decode(encode(values, format), format)


class RoundingOps(TorchOps):
    """The contract's table: what happens to activations and weights before an exact product."""

    def __init__(self, role, *, bf16):
        super().__init__()
        self.role, self.bf16 = role, bf16

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
            return to_bf16(x) if self.bf16 else to_panel_ints(x), weight.of_prompts(bf16=self.bf16)
        return to_int8(x), weight


def to_panel_ints(x):
    """amax / 2047 per 512 columns, in f32: codec/panel.h."""
    return rounded_by_parts(x, 512, 2047, lambda part, amax: part * (2047 / amax))


def to_bf16(x):
    return x.float().bfloat16().double()


def to_int8(x):
    """d = amax / 127 per 32, in f32."""
    return rounded_by_parts(x, 32, 127, lambda part, amax: part / (amax / 127))


def rounded_by_parts(x, together, top, scaled):
    rounded = []
    for part in x.float().split(together, dim=-1):
        amax = part.abs().amax(-1, keepdim=True)
        rounded.append(torch.where(amax > 0, scaled(part, amax).round() * (amax / top), 0))
    return torch.cat(rounded, -1).double()


def modelled(runner, ids, role, isa):
    batch = runner.batch([Piece(0, ids, role=role)])
    with torch.no_grad():
        return runner.network.forward(
            RoundingOps(role, bf16=isa == "amx"), TorchStep(batch, None, torch.float64)
        ).head.numpy()
