"""What is measured, and what it takes at least: cases, and the bytes and multiply-adds of their steps."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import prod

from qwick.cache.spec import CacheSpec
from qwick.errors import UsageError
from qwick.model.model import Model
from qwick.model.names import TensorSpec, tensor_specs
from qwick.ops.contract import Role
from qwick.ops.native import NativeWeight


@dataclass(frozen=True, slots=True)
class Case:
    """One figure, named as llama-bench names it.

    role        PROMPT: `num_tokens` read at once; DECODE: as many steps of one token
    num_tokens  of each sequence
    depth       tokens of each sequence that are in the cache before
    batch       sequences together; the rate is that of all
    """

    role: Role
    num_tokens: int
    depth: int = 0
    batch: int = 1
    threads: int = 1

    @property
    def name(self) -> str:
        depth = f" @ d{self.depth}" if self.depth else ""
        return ("pp" if self.is_prompt else "tg") + f"{self.num_tokens}{depth}" + (f" b{self.batch}" * (self.batch > 1))

    @property
    def is_prompt(self) -> bool:
        return self.role is Role.PROMPT

    @property
    def context_len(self) -> int:
        """Of each sequence at the end."""
        return self.depth + self.num_tokens

    @property
    def total_tokens(self) -> int:
        return self.num_tokens * self.batch


def plan_cases(
    prompts: Sequence[int],
    answers: Sequence[int],
    depths: Sequence[int],
    batches: Sequence[int],
    threads: Sequence[int],
) -> list[Case]:
    """Every combination; 0 of `prompts` or `answers` leaves that kind out. Raises UsageError."""
    for name, values, least in (
        ("-p", prompts, 0),
        ("-n", answers, 0),
        ("--depth", depths, 0),
        ("--batch", batches, 1),
        ("--threads", threads, 1),
    ):
        if not values or min(values) < least:
            raise UsageError(f"{name} needs whole numbers from {least} on, with commas between")
    lengths = [(Role.PROMPT, n) for n in prompts if n] + [(Role.DECODE, n) for n in answers if n]
    if not lengths:
        raise UsageError("-p 0 and -n 0 leave nothing to measure; give at least one of them")
    cases = [
        Case(role, num_tokens, depth, batch, count)
        for count, depth, batch, (role, num_tokens) in product(threads, depths, batches, lengths)
    ]
    return list(dict.fromkeys(cases))


@dataclass(frozen=True, slots=True)
class StepCost:
    """What the trunk takes: bytes of weights a step, of states (read and written) and of KV a sequence; arithmetic.

    token_kv_bytes  of one token, over all attention layers
    prompt_madds    multiply-adds of a prompt token in matrices; the head is left out, one row of a prompt meets it
    """

    weight_bytes: int
    state_bytes: int
    token_kv_bytes: int
    prompt_madds: int

    @classmethod
    def of_model(cls, model: Model[NativeWeight], kv_format: str = "f16") -> "StepCost":
        """Of the weights as memory holds them."""
        config = model.config
        trunk = config.resolved(tie_word_embeddings=bool(config.tie_word_embeddings), has_mtp=False)
        specs = list(tensor_specs(trunk))
        head = "embed_tokens" if trunk.tie_word_embeddings else "lm_head"
        cache = CacheSpec(trunk.cache_shape(num_pages=0, num_slots=0, kv_format=kv_format))
        return cls(
            weight_bytes=sum(model.weight(s.name).num_bytes for s in specs if s.name in (head, "norm") or _in_layer(s)),
            state_bytes=2 * cache.state_bytes,
            token_kv_bytes=cache.token_bytes,
            prompt_madds=sum(prod(s.shape) for s in specs if s.matrix and _in_layer(s)),
        )

    def decode_bytes(self, case: Case) -> float:
        """Of the average step of a decode case: weights once, states and KV of every sequence."""
        context_len = case.depth + (case.num_tokens + 1) / 2  # a step attends to its own token too
        return self.weight_bytes + case.batch * (self.state_bytes + context_len * self.token_kv_bytes)


def _in_layer(spec: TensorSpec) -> bool:
    return spec.name.startswith("layers.")
