"""The contract every op is written against.

The network (`model/qwen3_5.py`) is a Python function over an `Ops` object. `ops/torch.py` computes at once, in any
float type, differentiably; `ops/native.py` records a program that C++ replays. Both obey what is written here.

Words: a *batch* is a ragged list of *runs*; a run is some consecutive tokens of one sequence; a *row* is one token's
place in the batch. Runs lie in the batch one after another, in order. Shapes are `[tokens, heads, dim]` and so on;
values are f32 at run time (the torch ops: the oracle's type). The only effects go through the cache in `step`.

Numerics depend on a run's role and a weight's family, never on the number of rows, neighbours, chunking or threads:

===========  =====================================================  ==============================================
family       decode rows                                            prompt rows
===========  =====================================================  ==============================================
f32          f32 products, f32 sums in a fixed order                the same precision
bf16, f16    f32 activation x weight, f32 sums                      activation and weight to int16 per 512 columns
of blocks    activation to int8 per 32 (d = amax/127), integer      of a row, at most 2047; integer dots, f32 over
             dots of sub-blocks, f32 over blocks in a fixed order   the 512s in a fixed order (codec/panel.h)
===========  =====================================================  ==============================================

Prompt rows' integers are the same on every instruction set, so are their bits, but with AMX, where both operands are
rounded to bf16 instead and sums are f32, 32 columns at a time: either costs a product less than 4e-3 of its RMS.

The head is for wanted rows only and always has the numerics of decode rows, whatever their role: prompt numerics would
decode the whole vocabulary's weights for the one row that a prompt wants.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from qwick.formats import Format

V = TypeVar("V")  # a value: [tokens, width]
W = TypeVar("W")  # a weight handle
S = TypeVar("S")  # one step: batch and cache
W_contra = TypeVar("W_contra", contravariant=True)
S_contra = TypeVar("S_contra", contravariant=True)
W_co = TypeVar("W_co", covariant=True)

Float32: TypeAlias = NDArray[np.float32]
Int32: TypeAlias = NDArray[np.int32]
Progress: TypeAlias = Callable[[int], None]  # called with the number of bytes read since the last call

MAX_DRAFT_LEN = 8  # rows of one verification; also the length of a slot's pending lane
ATTENTION_SPLIT_LEN = 512  # keys per split, on absolute positions, so that the split never depends on the chunking
ATTENTION_BLOCK_LEN = 64  # keys per online-softmax step inside a split
KV_FORMATS = ("f16", "bf16", "q8_0", "f32")  # of keys and values in the cache; the first is the default


class Role(IntEnum):
    """Which numerics a run's rows have but in the head. A token's role never changes with how it is scheduled."""

    DECODE = 0  # also the rows of a draft verification
    PROMPT = 1


@dataclass(frozen=True, slots=True)
class Run:
    """Consecutive tokens of one sequence.

    context_len  tokens of the sequence already in the cache; 0 starts from the zero state whatever the slot holds.
    pages        page i holds the keys and values of positions [i * page_len, (i + 1) * page_len); long enough for
                 context_len + num_tokens.
    commit       False verifies a draft (num_tokens <= MAX_DRAFT_LEN): the slot's state is read and not written, the
                 recurrent layers' inputs go to the slot's pending lane, and `Commit` later replays some of them.
    snapshots    (n, slot): write the state as it is after n tokens of this run (1 <= n <= num_tokens) to that slot.
    """

    num_tokens: int
    role: Role
    context_len: int
    slot: int
    pages: Sequence[int] | Int32
    commit: bool = True
    snapshots: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Commit:
    """Advance `slot` over the first `num_tokens` of its pending lane. The sequence had `context_len` tokens before."""

    slot: int
    num_tokens: int
    context_len: int


@dataclass(frozen=True, slots=True)
class LogitEdits:
    """Changes to single logits: bias and penalties.

    row_starts  [wanted + 1]: entries row_starts[i] .. row_starts[i + 1] are wanted row i's; ids in a row are distinct
    token_ids   [entries]
    values      [entries, 3] f32: bias, repetition (> 0), offset. In this order: l += bias; l = l / repetition where
                l > 0, else l * repetition; l += offset. All finite, but that a bias of minus infinity forbids a token.
    """

    row_starts: Int32
    token_ids: Int32
    values: Float32


@dataclass(frozen=True, slots=True)
class Batch:
    """One step's input.

    token_ids    [tokens]
    rope_cos/sin [tokens, rotary_dim / 2], f32, rounded as the reference does (see model/rope.py)
    wanted_rows  [wanted], rows whose logits are wanted, ascending
    top_k        0: all logits; else only the k largest of each wanted row (ties: lower id first)
    logsumexp    with a top-k, also the log-sum-exp of each wanted row (what turns logits into log-probabilities)
    hidden       [tokens, hidden_size], input of the draft program: the trunk's normed output for each row
    edits        changes to some logits of the wanted rows, before the choice of the top-k
    """

    token_ids: Int32
    rope_cos: Float32
    rope_sin: Float32
    runs: tuple[Run, ...]
    wanted_rows: Int32
    top_k: int = 0
    hidden: Float32 | None = None
    edits: LogitEdits | None = None
    logsumexp: bool = False

    @property
    def num_tokens(self) -> int:
        return len(self.token_ids)


@dataclass(frozen=True, slots=True)
class CommitBatch:
    """Input of the commit program."""

    commits: tuple[Commit, ...]


@dataclass(frozen=True, slots=True)
class Result:
    """What a program returned. Arrays are valid until the next run of the same program (copy to keep).

    logits       [wanted, vocab] when top_k was 0, else None; edited
    top_ids      [wanted, top_k] int32, largest edited logit first; top_logits the edited logits, when top_k > 0
    logsumexp    [wanted], over the whole vocabulary before the edits, when asked for and top_k > 0
    hidden       [tokens, hidden_size], the output of the last norm
    """

    logits: Float32 | None = None
    top_ids: Int32 | None = None
    top_logits: Float32 | None = None
    logsumexp: Float32 | None = None
    hidden: Float32 | None = None


@dataclass(frozen=True, slots=True)
class AttentionHeads:
    """Gated grouped-query attention: q head h reads kv head h // (num_q / num_kv)."""

    num_q: int
    num_kv: int
    head_dim: int
    rotary_dim: int


@dataclass(frozen=True, slots=True)
class DeltaHeads:
    """Gated DeltaNet heads in canonical (tiled) order: v head j uses k head j mod num_k."""

    num_k: int
    num_v: int
    k_dim: int
    v_dim: int

    @property
    def channels(self) -> int:
        """Width of the convolution: q, k and v side by side."""
        return 2 * self.num_k * self.k_dim + self.num_v * self.v_dim


@dataclass(frozen=True, slots=True)
class CacheShape:
    """The two kinds of memory. KV pages: [layer][page][k|v][kv head][page_len][head_dim] of `kv_format`.

    q8_0: int8 codes with one f16 scale d = amax / 127 per 32 values of a row (head_dim a multiple of 32). Queries meet
    them as int16 (d = amax / 32767 of a row); so do the weights of a block's values, each times its value's scale.
    (Native kernels lay a page out in blocks of 64 tokens: kernels/attention/kv_block.h.)

    Slots, all f32: S [layer][slot][v head][k_dim][v_dim]; the convolution's last conv_kernel - 1 inputs
    [layer][slot][conv_kernel - 1][channels]; the pending lane [layer][slot][MAX_DRAFT_LEN][channels + 2 * num_v].
    (Native kernels may order the two innermost dimensions of S as they like.)
    """

    num_attention_layers: int  # the trunk's, plus one for the MTP block (its layer index is the last)
    num_delta_layers: int
    attention: AttentionHeads
    delta: DeltaHeads
    conv_kernel: int
    num_pages: int
    num_slots: int
    page_len: int = 64
    kv_format: str = "f16"


@dataclass(frozen=True, slots=True)
class Outputs(Generic[V]):
    """What a network function returns. `head` is None for programs that only fill the cache."""

    hidden: V | None = None
    head: V | None = None


class Ops(Protocol[V, W_contra, S_contra]):
    """Each op returns a new value and never changes its inputs."""

    def embed(self, table: W_contra, step: S_contra) -> V:
        """Rows of `table` [vocab, hidden] for batch.token_ids -> [tokens, hidden]."""
        ...

    def hidden(self, step: S_contra) -> V:
        """batch.hidden -> [tokens, hidden]."""
        ...

    def concat(self, left: V, right: V) -> V:
        """[tokens, a], [tokens, b] -> [tokens, a + b]."""
        ...

    def rms_norm(self, x: V, weight: W_contra, eps: float) -> V:
        """x * rsqrt(mean(x^2) + eps) * weight over the last dimension; weight is the full factor (1 + w of HF)."""
        ...

    def linear(self, x: V, weights: Sequence[W_contra]) -> tuple[V, ...]:
        """x [tokens, k] times each weight [n_i, k] transposed -> [tokens, n_i] each.

        Weights may be of different families; activations are rounded or quantised once for all that share them.
        """
        ...

    def linear_add(self, x: V, weight: W_contra, residual: V) -> V:
        """residual + x @ weight^T -> [tokens, n]."""
        ...

    def gate_up(self, x: V, gate: W_contra, up: W_contra) -> V:
        """silu(x @ gate^T) * (x @ up^T) -> [tokens, n]."""
        ...

    def causal_conv(self, qkv: V, weight: W_contra, layer: int, step: S_contra) -> V:
        """silu of the depthwise causal convolution of each run, `weight` [channels, conv_kernel], carried in the slot.

        y[t, c] = silu(sum_i weight[c, i] * x[t - (conv_kernel - 1) + i, c]). `layer` counts the delta layers.
        """
        ...

    def gated_delta(
        self, qkv: V, a: V, b: V, decay: W_contra, dt_bias: W_contra, layer: int, heads: DeltaHeads, step: S_contra
    ) -> V:
        """The gated delta rule of each run, state carried in the slot -> [tokens, num_v * v_dim].

        qkv [tokens, channels] after the convolution; a, b [tokens, num_v]; decay = -exp(A_log) [num_v] f32.
        beta = sigmoid(b); g = exp(decay * softplus(a + dt_bias)); q, k <- x * rsqrt(sum(x^2) + 1e-6); q *= k_dim^-0.5
        S <- g S; delta = beta * (v - S^T k); S <- S + k delta^T; o = S^T q.   (arXiv:2412.06464, eq. 10)
        """
        ...

    def gated_rms_norm(self, x: V, gate: V, weight: W_contra, eps: float) -> V:
        """weight [dim] * rms_norm over each head of `dim` in x, times silu(gate); x, gate [tokens, heads * dim]."""
        ...

    def norm_rope(self, x: V, weight: W_contra, eps: float, heads: AttentionHeads, step: S_contra, *, gated: bool) -> V:
        """RMS-normalise each head, then rotate its first rotary_dim dims (pairs d, d + rotary_dim / 2).

        gated False: x [tokens, num_kv * head_dim] (keys) -> the same shape.
        gated True:  x [tokens, num_q, 2, head_dim] (query rows, then gate rows per head) -> [tokens, num_q * head_dim].
        With the angles of the row: out[d] = x[d] cos - x[d + r/2] sin; out[d + r/2] = x[d + r/2] cos + x[d] sin.
        """
        ...

    def attention(
        self, query: V, key: V, value: V, query_gate: V, layer: int, heads: AttentionHeads, step: S_contra
    ) -> V:
        """Write key and value to the pages, attend causally, multiply by sigmoid(gate) -> [tokens, num_q * head_dim].

        query, key as `norm_rope` returns them; value [tokens, num_kv * head_dim]; the gate is the second half of each
        head of query_gate. Scale head_dim^-0.5. Row t of a run sees positions 0 .. context_len + t.
        """
        ...

    def head(self, x: V, table: W_contra, step: S_contra) -> V:
        """x[wanted_rows] @ table^T, all logits or the top-k, and the log-sum-exp, as the batch says.

        Decode numerics for every row.
        """
        ...

    def replay(
        self, conv: W_contra, decay: W_contra, dt_bias: W_contra, layer: int, heads: DeltaHeads, step: S_contra
    ) -> None:
        """Commit program: run the convolution and the delta rule over the pending lane of each Commit's slot."""
        ...


class Network(Protocol[W_co]):
    """A network function with its weights bound, ready to be computed or recorded."""

    def __call__(self, ops: Ops[V, W_co, S], step: S) -> Outputs[V]: ...


class Program(Protocol):
    """A network made runnable by a backend."""

    def run(self, batch: Batch | CommitBatch) -> Result: ...


Windows: TypeAlias = Iterable[tuple[int, NDArray[Any]]]
"""(first row, rows) in ascending order, together the whole tensor.

rows: [n, k] f32, f16, or uint16 holding bf16 bits; or [n, row bytes] uint8, blocks of a format as files hold them."""


@dataclass(frozen=True, slots=True)
class FileRows:
    """Windows of a matrix whose rows lie in an open file end to end, for backends that read files themselves.

    windows  the same rows, for those that do not
    fd       the file, open until `Backend.read_files` is over; `path` names it in messages
    offset   of the first row, in bytes
    format   what the rows hold
    """

    windows: Iterable[tuple[int, NDArray[Any]]]
    path: Path
    fd: int
    offset: int
    format: Format

    def __iter__(self) -> Iterator[tuple[int, NDArray[Any]]]:
        return iter(self.windows)


class Backend(Protocol[W]):
    """What `model/` needs of an implementation: a place for weights, a cache, programs."""

    def add_matrix(
        self, name: str, shape: tuple[int, int], format: Format, windows: Windows, source: Format | None = None
    ) -> W:
        """Store a [n, k] weight in the family of `format`, window by window; nothing else keeps a copy.

        `source` says what uint8 windows hold. Of the same family they are regrouped without loss; else they are decoded
        and encoded anew, as f32 rows are. Every window but the last has a multiple of 16 rows. `FileRows` may be noted
        only, and read by `read_files`.
        """
        ...

    def read_files(self, progress: Progress | None = None) -> None:
        """Read the matrices whose `FileRows` were only noted so far. Raises CheckpointError."""
        ...

    def add_vector(self, name: str, values: Float32) -> W:
        """Store a small f32 tensor (norms, convolution taps, decay) as it is, any shape."""
        ...

    def open_cache(self, shape: CacheShape) -> None:
        """Allocate the cache all programs of this backend use. Raises CapacityError when memory is short."""
        ...

    def copy_slot(self, source: int, target: int) -> None:
        """Copy the recurrent and convolution state of every delta layer from one slot to another."""
        ...

    def copy_page(self, source: int, target: int) -> None:
        """Copy one page in every attention layer (copy on write of a partial page)."""
        ...

    def save_state(self, slot: int, pages: Sequence[int]) -> None:
        """Copy the recurrent and convolution state of every delta layer of a slot into the memory of KV pages.

        The pages, at least `CacheSpec.state_pages` distinct ones, hold no keys and values then. Raises KernelError,
        before anything is written, for a slot or pages that do not fit.
        """
        ...

    def load_state(self, pages: Sequence[int], slot: int) -> None:
        """Copy back what `save_state` put there, bit for bit: the same pages in the same order, unchanged since."""
        ...

    def compile(self, network: Network[W], *, max_tokens: int) -> Program:
        """A program for batches of up to `max_tokens` rows."""
        ...
