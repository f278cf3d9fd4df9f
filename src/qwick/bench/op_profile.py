"""Where a step's time goes: the clock of every op of the recorded program, added up by kind."""

from dataclasses import dataclass
from statistics import median

from qwick.bench.cases import Case, StepCost
from qwick.bench.sequences import Sequences
from qwick.ops.contract import Batch
from qwick.ops.native import NativeProgram


@dataclass(frozen=True, slots=True)
class OpRow:
    """Ops of one kind that read weights of the same names.

    kind        as the program has it, and the last part of the weights' names: `linear_add down_proj`
    count       ops a step
    seconds     a step: the sum of each op's median over the steps
    num_bytes   a step: weights; states (gated_delta, causal_conv) and KV (attention) of a decode step, else 0
    """

    kind: str
    count: int
    seconds: float
    num_bytes: float

    @property
    def speed(self) -> float:
        """Bytes per second."""
        return self.num_bytes / self.seconds if self.seconds > 0 else 0.0


def profile_ops(program: NativeProgram, sequences: Sequences, case: Case, cost: StepCost) -> list[OpRow]:
    """One pass of a case with the clock read after every op, slowest kind first."""
    program.time_ops(on=True)
    try:
        times = [_op_seconds(program, sequences, step) for step in sequences.steps(case)]
    finally:
        program.time_ops(on=False)
    rows: dict[str, tuple[int, float, float]] = {}
    for (kind, weights, num_bytes), seconds in zip(program.ops, zip(*times, strict=True), strict=True):
        name = f"{kind} {_tail(weights)}".rstrip()
        count, known_seconds, known_bytes = rows.get(name, (0, 0.0, 0.0))
        rows[name] = count + 1, known_seconds + median(seconds), known_bytes + num_bytes
    found = [OpRow(name, *row) for name, row in rows.items()]
    if not case.is_prompt:
        found = [_with_cache(row, case, cost) for row in found]
    return sorted(found, key=lambda row: -row.seconds)


def _op_seconds(program: NativeProgram, sequences: Sequences, step: Batch) -> list[float]:
    sequences.run([step])
    return program.op_seconds


def _tail(weights: str) -> str:
    """`layers.3.mlp.gate_proj layers.3.mlp.up_proj` -> `gate_proj`: the first one's own name."""
    return weights.partition(" ")[0].rpartition(".")[2]


def _with_cache(row: OpRow, case: Case, cost: StepCost) -> OpRow:
    extra = 0.0
    if row.kind == "gated_delta":
        extra = case.batch * cost.state_bytes  # the convolution's part, some 6 %, counted here too
    elif row.kind == "attention":
        extra = case.batch * cost.token_kv_bytes * (case.depth + (case.num_tokens + 1) / 2)
    return OpRow(row.kind, row.count, row.seconds, row.num_bytes + extra)
