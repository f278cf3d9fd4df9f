"""Weights, gradients and the optimisers' memory in flat tensors that all workers share."""

from collections.abc import Iterator

import torch
from torch import Tensor

from recipes.pocket.network import PocketModel
from recipes.pocket.optimizer import MOMENTUM, WEIGHT_DECAY, orthogonalised
from recipes.pocket.plan import WORKERS, Plan

_ADAM = (0.9, 0.98, 1e-8)
FIELDS = ("weights", "average", "first", "second")  # what a checkpoint holds


class Shared:
    """One float of each field for every parameter's element; `gradients` one row for each worker."""

    def __init__(self, num: int) -> None:
        for name in FIELDS:
            setattr(self, name, torch.zeros(num).share_memory_())
        self.gradients = torch.zeros(WORKERS, num).share_memory_()
        self.weights: Tensor
        self.average: Tensor
        self.first: Tensor  # momentum
        self.second: Tensor  # Adam's mean square


class Slot:
    """One parameter's place in the flat tensors."""

    def __init__(self, name: str, shape: torch.Size, begin: int) -> None:
        self.name, self.shape, self.part = name, shape, slice(begin, begin + shape.numel())
        self.by_muon = len(shape) == 2 and not name.endswith(("embed_tokens", "conv1d"))

    def view(self, flat: Tensor) -> Tensor:
        return flat[self.part].view(self.shape)


def slots(model: PocketModel) -> list[Slot]:
    found: list[Slot] = []
    begin = 0
    for name, p in model.weights.items():
        found.append(Slot(name, p.shape, begin))
        begin += p.numel()
    return found


def attach(model: PocketModel, shared: Shared, worker: int) -> None:
    """Make the model's parameters and gradients views of the shared ones."""
    for slot in slots(model):
        p = model.weights[slot.name]
        p.data = slot.view(shared.weights)
        p.grad = slot.view(shared.gradients[worker])


def owned(all_slots: list[Slot], worker: int) -> Iterator[Slot]:
    """The parameters that this worker updates: dealt out by size."""
    yield from sorted(all_slots, key=lambda slot: -slot.shape.numel())[worker::WORKERS]


@torch.no_grad()
def update(shared: Shared, mine: list[Slot], plan: Plan, step: int, *, drafted: bool) -> None:
    """One step of the optimisers for `mine`, from the mean of all workers' gradients. Parameters of the MTP block only
    when it was `drafted`."""
    total = shared.gradients.mean(0)
    total *= min(1.0, plan.clip_norm / (total.norm().item() + 1e-6))
    share = plan.lr_share(step)
    decay = min(plan.average_decay, (1 + step) / (10 + step))
    for slot in mine:
        if not drafted and slot.name.startswith("mtp"):
            continue
        p, g, first = (slot.view(x) for x in (shared.weights, total, shared.first))
        if slot.by_muon:
            lr = plan.matrix_lr * share
            first.lerp_(g, 1 - MOMENTUM)
            p.mul_(1 - lr * WEIGHT_DECAY)
            p.add_(orthogonalised(g.lerp(first, MOMENTUM)), alpha=-lr * 0.2 * max(p.shape) ** 0.5)
        else:
            _adam(p, g, first, slot.view(shared.second), plan.vector_lr * share, step)
        slot.view(shared.average).lerp_(p, 1 - decay)


def _adam(p: Tensor, g: Tensor, first: Tensor, second: Tensor, lr: float, step: int) -> None:
    beta1, beta2, eps = _ADAM
    first.lerp_(g, 1 - beta1)
    second.mul_(beta2).addcmul_(g, g, value=1 - beta2)
    size = (second / (1 - beta2 ** (step + 1))).sqrt_().add_(eps)
    p.addcdiv_(first, size, value=-lr / (1 - beta1 ** (step + 1)))
