"""Small networks and a runner that feeds them pieces of sequences on any backend."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qwick.formats import Format
from qwick.model.load import load_network
from qwick.model.rope import RopeTable
from qwick.model.source import open_source
from qwick.ops.contract import Backend, Batch, Commit, CommitBatch, Result, Role, Run
from tests.checkpoints import Config, small_config

SEED = 11
VOCAB = 512

# Together: V/K ratio 1, 2, 3; tied and untied; kv groups 1, 2, 4; 4 and 8 layers; head dims that are and are not powers
# of two; matrices whose rows and columns are no multiple of a vector; eps large enough to matter (see mutations).
CONFIGS: dict[str, Config] = {
    "ratio1_tied": small_config(linear_num_key_heads=2, linear_num_value_heads=2, vocab_size=500),
    "ratio2_untied": small_config(tie_word_embeddings=False, rms_norm_eps=1e-3),
    "ratio3_groups1": small_config(
        linear_num_key_heads=2, linear_num_value_heads=6, linear_value_head_dim=48, num_key_value_heads=4
    ),
    "deep_groups4": small_config(
        num_hidden_layers=8, num_attention_heads=4, num_key_value_heads=1, partial_rotary_factor=0.5
    ),
    "odd_dims": small_config(
        hidden_size=96,
        intermediate_size=224,
        head_dim=80,
        partial_rotary_factor=0.4,
        linear_num_key_heads=6,
        linear_num_value_heads=6,
        linear_key_head_dim=48,
        linear_value_head_dim=16,
        tie_word_embeddings=False,
        vocab_size=333,
        rms_norm_eps=1e-4,
    ),
    "true_heads": small_config(
        hidden_size=128,
        intermediate_size=256,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=256,
        linear_num_key_heads=2,
        linear_num_value_heads=4,
        linear_key_head_dim=128,
        linear_value_head_dim=128,
    ),
    "whole_blocks": small_config(  # every row is a multiple of 256
        hidden_size=256,
        intermediate_size=512,
        linear_value_head_dim=64,
        vocab_size=333,
        tie_word_embeddings=False,
    ),
    "every_second_three_taps": small_config(
        full_attention_interval=2, linear_conv_kernel_dim=3, tie_word_embeddings=False, head_dim=32,
        partial_rotary_factor=0.5,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Piece:
    """Consecutive tokens of the sequence in `slot`; the fields are those of a Run."""

    slot: int
    ids: Sequence[int] | NDArray[np.integer]
    start: int = 0
    role: Role = Role.PROMPT
    commit: bool = True
    snapshots: tuple[tuple[int, int], ...] = ()
    pages_of: int | None = None  # another slot's pages: continuing from its snapshot
    hidden: NDArray[np.float32] | None = None  # [tokens, hidden_size], for the draft program


@dataclass(frozen=True)
class Rows:
    """What a piece returned: [tokens, vocab] and [tokens, hidden_size], copies."""

    logits: Any
    hidden: Any


class Runner:
    """A network with its weights on a backend, a cache open and the programs compiled.

    The pages of a slot are scattered among those of the others: slot s has pages s, s + num_slots, ...
    """

    def __init__(
        self,
        folder: Path,
        backend: Backend[Any],
        *,
        format: Format | None = None,
        kv_format: str = "f32",
        max_len: int = 384,
        num_slots: int = 5,
        max_tokens: int = 768,
    ) -> None:
        with open_source(folder) as source:
            self.network = load_network(source, backend, format)
        self.backend = backend
        self.config = self.network.config
        self.rope = RopeTable(self.config)
        self.num_slots, pages_each = num_slots, -(-max_len // 64)
        shape = self.config.cache_shape(num_pages=pages_each * num_slots, num_slots=num_slots, kv_format=kv_format)
        backend.open_cache(shape)
        self.pages_each = pages_each
        programs = self.network.programs()
        self.programs = {n: backend.compile(network, max_tokens=max_tokens) for n, network in programs.items()}

    def pages(self, slot: int) -> list[int]:
        return [slot + i * self.num_slots for i in range(self.pages_each)]

    def batch(self, pieces: Sequence[Piece], wanted: Sequence[int] | None = None, top_k: int = 0) -> Batch:
        """`wanted` None: the logits of every row."""
        ids = np.concatenate([np.asarray(p.ids, np.int32) for p in pieces])
        positions = np.concatenate([np.arange(p.start, p.start + len(p.ids)) for p in pieces])
        runs = tuple(
            Run(
                len(p.ids),
                p.role,
                p.start,
                p.slot,
                self.pages(p.slot if p.pages_of is None else p.pages_of),
                p.commit,
                p.snapshots,
            )
            for p in pieces
        )
        cos, sin = self.rope.angles(positions)
        rows = np.arange(len(ids)) if wanted is None else np.asarray(wanted)
        with_hidden = pieces[0].hidden is not None
        hidden = np.concatenate([np.asarray(p.hidden, np.float32) for p in pieces]) if with_hidden else None
        return Batch(ids, cos, sin, runs, rows.astype(np.int32), top_k, hidden)

    def run(self, *pieces: Piece, program: str = "forward") -> list[Rows]:
        """Logits and hidden state of every row, piece by piece; f64 when the backend computes in f64."""
        batch = self.batch(pieces)
        logits, hidden = self._outputs(self.programs[program], batch)
        bounds = np.cumsum([0, *(len(p.ids) for p in pieces)])
        return [Rows(logits[a:b], hidden[a:b]) for a, b in pairwise(bounds)]

    def one(self, piece: Piece, program: str = "forward") -> Rows:
        return self.run(piece, program=program)[0]

    def result(self, *pieces: Piece, wanted: Sequence[int], top_k: int, program: str = "forward") -> Result:
        return self.programs[program].run(replace(self.batch(pieces, wanted, top_k), logsumexp=True))

    def commit(self, slot: int, num_tokens: int, context_len: int) -> None:
        self.programs["commit"].run(CommitBatch((Commit(slot, num_tokens, context_len),)))

    def _outputs(self, program: Any, batch: Batch) -> tuple[Any, Any]:
        if hasattr(program, "outputs"):  # torch: unrounded
            out = program.outputs(batch)
            return out.head.numpy(), out.hidden.numpy()
        result = program.run(batch)
        return result.logits.copy(), result.hidden.copy()

    def forced(self, ids: NDArray[np.integer], prompt_len: int, slot: int = 0) -> Rows:
        """Teacher-forced: a prompt in one run, then decode rows one by one; all rows in order."""
        parts = [self.one(Piece(slot, ids[:prompt_len]))]
        for i in range(prompt_len, len(ids)):
            parts.append(self.one(Piece(slot, ids[i : i + 1], i, Role.DECODE)))  # noqa: PERF401
        return Rows(np.concatenate([p.logits for p in parts]), np.concatenate([p.hidden for p in parts]))


def random_ids(count: int, seed: int = 0, vocab: int = 333) -> NDArray[np.int64]:
    return np.random.default_rng(seed).integers(0, vocab, count)
