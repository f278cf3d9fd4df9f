"""One matrix product as a program of its own: the real driver and kernels, to be measured or checked alone."""

from typing import Generic

import numpy as np

from qwick.ops.contract import Backend, Batch, Float32, Network, Ops, Outputs, Role, Run, S, V, W


class Product(Generic[W]):
    """y = x weight^T for up to `max_rows` rows, with the numerics of a role."""

    def __init__(self, backend: Backend[W], weight: W, max_rows: int) -> None:
        def multiply(ops: Ops[V, W, S], step: S) -> Outputs[V]:
            return Outputs(hidden=ops.linear(ops.hidden(step), [weight])[0])

        network: Network[W] = multiply
        self._program = backend.compile(network, max_tokens=max_rows)

    def __call__(self, x: Float32, role: Role) -> Float32:
        """x [rows, k] -> [rows, n], valid until the next call."""
        rows = len(x)
        angles = np.zeros((rows, 0), np.float32)
        run = Run(rows, role, context_len=0, slot=0, pages=())
        nothing = np.empty(0, np.int32)
        result = self._program.run(Batch(np.zeros(rows, np.int32), angles, angles, (run,), nothing, hidden=x))
        assert result.hidden is not None
        return result.hidden
