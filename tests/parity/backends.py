"""The backends under test, by name: torch in f32, and the native one on every instruction set this machine has."""

from typing import Any

import torch

from qwick.ops.native import NativeBackend
from qwick.ops.torch import TorchBackend
from tests.instruction_sets import ISAS

BEST_ISA = ISAS[-1]  # the list goes from plain to best
BACKENDS = ("torch", *ISAS)


def open_backend(name: str, threads: int = 2) -> Any:
    """`torch`, or an ISA of the native backend."""
    if name == "torch":
        return TorchBackend(torch.float32)
    return NativeBackend(threads=threads, threads_batch=threads, isa=name)
