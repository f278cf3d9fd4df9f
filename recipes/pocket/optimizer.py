"""Muon, for the matrices: it needs fewer steps than AdamW for the same loss, which is what a CPU needs."""

from collections.abc import Iterable

import torch
from torch import Tensor

MOMENTUM = 0.95
WEIGHT_DECAY = 0.01
_NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # Keller Jordan's quintic


def orthogonalised(matrix: Tensor, steps: int = 5) -> Tensor:
    """The matrix with its singular values pushed to about 1 (Newton-Schulz; Jordan et al. 2024, "Muon")."""
    a, b, c = _NEWTON_SCHULZ
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if tall else x


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised; times 0.2 sqrt(larger side), so that a step is as large as one of AdamW."""

    def __init__(self, params: Iterable[Tensor], lr: float) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                momentum = state.setdefault("momentum", torch.zeros_like(p))
                momentum.lerp_(p.grad, 1 - MOMENTUM)
                update = orthogonalised(p.grad.lerp(momentum, MOMENTUM))
                p.mul_(1 - group["lr"] * WEIGHT_DECAY)
                p.add_(update, alpha=-group["lr"] * 0.2 * max(p.shape) ** 0.5)
