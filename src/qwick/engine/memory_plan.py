"""One hard cap on memory: what everything weighs, and how many pages of the cache are left.

A cap counts what the kernel counts: all resident memory of a process. What is mapped and touched later (pages, slots,
activations) is counted whole at once; what no one has measured (working memory of the kernels, Python's objects) by its
upper bound. So nothing that comes later goes beyond the cap.
"""

from dataclasses import dataclass
from pathlib import Path

from qwick.cache.spec import CacheSpec
from qwick.engine.constraint import MOST_KEPT_GRAMMARS
from qwick.engine.wanted import SCORED_ROWS
from qwick.errors import CapacityError, UsageError
from qwick.model.config import ModelConfig
from qwick.ops.contract import ATTENTION_SPLIT_LEN, MAX_DRAFT_LEN

MIB = 1 << 20
_HUGE_PAGE = 2 * MIB  # mappings are whole ones
_STATM = Path("/proc/self/statm")

# Of the kernels: rows whose logits are in memory at a time (sample/head.cpp), tokens of a prompt that share a pass over
# the keys (attention/attention.cpp), decoded weights of a thread, weight of one item of work (linear/linear.cpp).
_HEAD_ROWS = 64
_GROUP_TOKENS = 48  # with AMX; 24 without
_PANEL_BYTES = 4 * 16 * 512 * 2
_PIECE_BYTES = 128 << 10

# Of Python: what grows with nothing, with each token of a sequence (ids in lists, the trie), with each logit while a
# token is drawn among all of them, with each distinct token that penalties count.
_PYTHON_BYTES = 12 * MIB
_TOKEN_BYTES = 64
_DRAWN_BYTES = 40
_SEEN_BYTES = 150
# Of the grammars of answers, from the first one on: for each token what knows its text (measured: 118 MB for 248,320,
# 18 of them while it is made), for each that is kept or under way its automaton. Counted whether one comes or not.
_KNOWN_TOKEN_BYTES = 500
_GRAMMAR_BYTES = 256 << 10
_ROPE_POSITIONS = 1 << 16  # whose angles stay in memory (model/rope.py)


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """What there is, or may be, in bytes.

    weights    the network's
    process    Python, libraries, tokenizer: what is resident beside the weights before the first request
    states     slots: recurrent and convolution states of the sequences under way
    scratch    activations, working memory of the kernels, logits, and what requests take in Python
    pages      keys and values, of sequences and of what is remembered: `num_pages` of them
    cap        None: nobody set one
    """

    weights: int
    process: int
    states: int
    scratch: int
    pages: int
    num_pages: int
    cap: int | None = None

    @property
    def parts(self) -> dict[str, int]:
        """By the names that people read."""
        return {
            "weights": self.weights,
            "program": self.process,
            "states": self.states,
            "scratch": self.scratch,
            "KV pages": self.pages,
        }

    @property
    def total(self) -> int:
        return sum(self.parts.values())

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {_mib(size)}" for name, size in self.parts.items())
        return f"{_mib(self.total)} MiB: {parts}"


def plan_memory(
    spec: CacheSpec,
    *,
    cap: int | None,
    weights: int,
    process: int,
    scratch: int,
    num_slots: int,
    context_len: int,
    wanted_pages: int,
) -> MemoryPlan:
    """As many of `wanted_pages` as `cap` leaves room for; one whole context at least.

    Raises CapacityError, telling what weighs how much, when that does not fit.
    """
    least = spec.pages_for(context_len)
    fixed = MemoryPlan(weights, process, spec.slot_bytes * num_slots + _HUGE_PAGE, scratch, 0, 0, cap)

    def with_pages(count: int) -> MemoryPlan:
        return MemoryPlan(weights, process, fixed.states, scratch, spec.page_bytes * count, count, cap)

    if cap is None:
        return with_pages(max(wanted_pages, least))
    fitting = (cap - fixed.total) // max(spec.page_bytes, 1)
    if fitting < least:
        raise CapacityError(
            f"--memory {_mib(cap)} MiB is too little; with one context of {context_len:,} tokens everything takes "
            f"{with_pages(least)}; {_remedy(spec, with_pages(least))}"
        )
    return with_pages(min(max(wanted_pages, least), fitting))


def check_weights(cap: int, weights: int, process: int) -> None:
    """Before they are read. Raises CapacityError when they alone leave nothing."""
    if weights + process >= cap:
        raise CapacityError(
            f"--memory {_mib(cap)} MiB is too little for this model: its weights take {_mib(weights)} MiB, Python and "
            f"its libraries {_mib(process)}; give more, or take a smaller model or --format"
        )


def scratch_bytes(
    config: ModelConfig,
    *,
    buffer_bytes: int,
    threads: int,
    step_tokens: int,
    max_sequences: int,
    context_len: int,
) -> int:
    """At most that much beside weights and cache. `buffer_bytes`: activations of the compiled programs."""
    wanted = max_sequences + SCORED_ROWS
    kernels = max(
        _linear_bytes(config, step_tokens, threads),
        _delta_bytes(config, step_tokens, threads),
        _attention_bytes(config, step_tokens, max_sequences, context_len, threads),
        _head_bytes(config, wanted, threads),
    )
    logits = 2 * 4 * config.vocab_size * wanted  # of two steps, while results of the first are held
    seen = min(config.vocab_size, context_len) * _SEEN_BYTES
    angles = 4 * config.attention.rotary_dim * min(context_len + 64, _ROPE_POSITIONS)
    python = _PYTHON_BYTES + max_sequences * (context_len * _TOKEN_BYTES + seen) + _DRAWN_BYTES * config.vocab_size
    grammars = _KNOWN_TOKEN_BYTES * config.vocab_size + _GRAMMAR_BYTES * (MOST_KEPT_GRAMMARS + max_sequences)
    # Working memory grows by replacement: old and new are there together for a moment.
    return buffer_bytes + 2 * (kernels + _HUGE_PAGE) + logits + angles + python + grammars


def resident_bytes() -> int:
    """Of this process, now. Raises UsageError where the system does not tell."""
    try:
        return int(_STATM.read_text().split()[1]) * 4096
    except OSError:
        raise UsageError("--memory needs /proc, to know what Python takes; leave it out on this system") from None


def _linear_bytes(config: ModelConfig, rows: int, threads: int) -> int:
    """Rows rounded to integers both ways; of each thread two tiles of results and decoded weights."""
    widest = max(
        config.hidden_size,
        config.intermediate_size,
        config.attention.num_q * config.attention.head_dim,
        config.delta.num_v * config.delta.v_dim,
    )
    narrowest = min(config.hidden_size, config.intermediate_size)
    tile = max(16 * (2 * _PIECE_BYTES // narrowest + 96), rows * 64)
    return rows * widest * 9 // 2 + threads * (2 * 4 * tile + _PANEL_BYTES)


def _delta_bytes(config: ModelConfig, rows: int, threads: int) -> int:
    delta = config.delta
    prepared = rows * (2 * delta.num_v * max(delta.k_dim, delta.v_dim) + 2 * delta.num_v) * 4
    return prepared + threads * (64 * (4 * delta.k_dim + 4 * delta.v_dim) + delta.k_dim * delta.v_dim) * 4


def _attention_bytes(config: ModelConfig, rows: int, sequences: int, context_len: int, threads: int) -> int:
    """Of short runs a partial result for each stretch of keys; of longer ones two for each thread."""
    heads = config.attention
    row = (2 + heads.head_dim) * 4
    short_rows = min(MAX_DRAFT_LEN * sequences, rows)
    splits = context_len // ATTENTION_SPLIT_LEN + 1
    groups = _GROUP_TOKENS * heads.num_q // heads.num_kv
    return short_rows * splits * (heads.num_q * row + 64 * heads.num_kv) + threads * groups * 3 * (row + 4)


def _head_bytes(config: ModelConfig, sequences: int, threads: int) -> int:
    rows = min(_HEAD_ROWS, sequences)
    blocks = config.vocab_size // 64 + 64  # bounds of blocks of logits, and their order
    of_rows = rows * (config.vocab_size * 4 + blocks * 4 + config.hidden_size * 9)
    return of_rows + threads * (blocks * 4 + 2 * 4 * 16 * (2 * _PIECE_BYTES // config.hidden_size + 96))


def _remedy(spec: CacheSpec, plan: MemoryPlan) -> str:
    """What would help most."""
    if plan.total - (plan.cap or 0) > plan.pages + plan.states:
        return "give more, or take a smaller model or --format"
    smaller = "" if spec.shape.kv_format == "q8_0" else ", --kv-format q8_0"
    return f"give more, or a smaller --ctx-size{smaller}, or fewer sequences at a time"


def _mib(num_bytes: int) -> str:
    return f"{num_bytes / MIB:,.0f}"
