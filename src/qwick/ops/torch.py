"""The ops in torch: functional, differentiable, in any float type. The oracle in f64; the trainer's network in f32.

Plain definitions, one line of mathematics at a time; ragged runs are padded to a rectangle and cut back. Roles are
ignored: everything is computed in the type of the weights, which is what the native ops are measured against.
"""

# torch's own stubs are partial (`Unknown` in `unflatten`, `from_numpy`, `linalg`):
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from qwick.errors import KernelError, UsageError
from qwick.formats import BF16, Q8_0, Format, widened
from qwick.ops.contract import (
    MAX_DRAFT_LEN,
    AttentionHeads,
    Batch,
    CacheShape,
    CommitBatch,
    DeltaHeads,
    Float32,
    LogitEdits,
    Network,
    Outputs,
    Progress,
    Result,
    Windows,
)
from qwick.ops.delta_chunks import delta_chunks


class TorchCache:
    """KV pages, recurrent slots and pending lanes as plain tensors; layouts as `CacheShape` says."""

    def __init__(self, shape: CacheShape, dtype: torch.dtype) -> None:
        heads, delta = shape.attention, shape.delta
        kv_dtype = {"f16": torch.float16, "bf16": torch.bfloat16}.get(shape.kv_format, dtype)
        layers, slots = shape.num_delta_layers, shape.num_slots
        self.shape = shape
        self.kv = torch.zeros(
            (shape.num_attention_layers, shape.num_pages, 2, shape.page_len, heads.num_kv, heads.head_dim),
            dtype=kv_dtype,
        )
        self.state = torch.zeros((layers, slots, delta.num_v, delta.k_dim, delta.v_dim), dtype=dtype)
        self.conv = torch.zeros((layers, slots, shape.conv_kernel - 1, delta.channels), dtype=dtype)
        self.pending_qkv = torch.zeros((layers, slots, MAX_DRAFT_LEN, delta.channels), dtype=dtype)
        self.pending_ab = torch.zeros((layers, slots, 2, MAX_DRAFT_LEN, delta.num_v), dtype=dtype)
        self.saved: dict[tuple[int, ...], tuple[Tensor, Tensor]] = {}  # by pages, which are full of NaN meanwhile


@dataclass(frozen=True)
class TorchStep:
    """A batch, the cache (None: every run starts empty and nothing is kept) and the index that pads ragged runs."""

    batch: Batch | CommitBatch
    cache: TorchCache | None
    dtype: torch.dtype = torch.float32
    hidden: Tensor | None = None  # overrides batch.hidden, so that training can differentiate through it
    rows: Tensor = field(init=False)  # [runs, longest]: row of each padded place
    valid: Tensor = field(init=False)  # [runs, longest] bool

    def __post_init__(self) -> None:
        lengths = [run.num_tokens for run in self.batch.runs] if isinstance(self.batch, Batch) else []
        starts = np.cumsum([0, *lengths])[:-1]
        place = np.arange(max(lengths, default=0))
        valid = place < np.array(lengths)[:, None] if lengths else np.zeros((0, 0), bool)
        rows = np.where(valid, starts[:, None] + place, 0) if lengths else np.zeros((0, 0), np.int64)
        object.__setattr__(self, "rows", torch.from_numpy(rows.astype(np.int64)))
        object.__setattr__(self, "valid", torch.from_numpy(valid))

    @property
    def tokens(self) -> Batch:
        assert isinstance(self.batch, Batch)
        return self.batch

    def pad(self, x: Tensor) -> Tensor:
        """[tokens, ...] -> [runs, longest, ...], zero in the padding."""
        return x[self.rows] * self.valid.reshape(*self.valid.shape, *[1] * (x.dim() - 1))

    def unpad(self, x: Tensor) -> Tensor:
        """[runs, longest, ...] -> [tokens, ...]."""
        return x[self.valid]


class TorchOps:
    """`Ops[Tensor, Tensor, TorchStep]`. `chunk_len` > 0 computes the delta rule in chunks (training: no snapshots)."""

    def __init__(self, chunk_len: int = 0) -> None:
        self._chunk_len = chunk_len

    def embed(self, table: Tensor, step: TorchStep) -> Tensor:
        return F.embedding(torch.from_numpy(step.tokens.token_ids.astype(np.int64)), table)

    def hidden(self, step: TorchStep) -> Tensor:
        if step.hidden is not None:
            return step.hidden
        assert step.tokens.hidden is not None
        return torch.from_numpy(step.tokens.hidden).to(step.dtype)

    def concat(self, left: Tensor, right: Tensor) -> Tensor:
        return torch.cat([left, right], dim=-1)

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps) * weight

    def linear(self, x: Tensor, weights: Sequence[Tensor]) -> tuple[Tensor, ...]:
        return tuple(F.linear(x, w) for w in weights)

    def linear_add(self, x: Tensor, weight: Tensor, residual: Tensor) -> Tensor:
        return residual + F.linear(x, weight)

    def gate_up(self, x: Tensor, gate: Tensor, up: Tensor) -> Tensor:
        return F.silu(F.linear(x, gate)) * F.linear(x, up)

    def causal_conv(self, qkv: Tensor, weight: Tensor, layer: int, step: TorchStep) -> Tensor:
        x = step.pad(qkv)
        carried = x.new_zeros((x.shape[0], weight.shape[1] - 1, x.shape[2]))
        if step.cache is not None:
            fresh = torch.tensor([run.context_len == 0 for run in step.tokens.runs])
            slots = [run.slot for run in step.tokens.runs]
            carried = torch.where(fresh[:, None, None], carried, step.cache.conv[layer, slots])
        x = torch.cat([carried, x], dim=1)
        if step.cache is not None:
            _keep_conv(step.cache, x.detach(), layer, step.tokens)
        return step.unpad(_conv_silu(x, weight))

    def gated_delta(
        self,
        qkv: Tensor,
        a: Tensor,
        b: Tensor,
        decay: Tensor,
        dt_bias: Tensor,
        layer: int,
        heads: DeltaHeads,
        step: TorchStep,
    ) -> Tensor:
        runs = step.tokens.runs
        q, k, v, log_g, beta = delta_inputs(step.pad(qkv), step.pad(a), step.pad(b), decay, dt_bias, heads)
        # A padded token neither decays nor writes.
        log_g, beta = (x * step.valid[:, :, None] for x in (log_g, beta))
        if step.cache is None and self._chunk_len:
            out, _ = delta_chunks(q, k, v, log_g, beta, chunk_len=self._chunk_len)
            return step.unpad(out).flatten(1)
        q, k = _tiled(q, heads), _tiled(k, heads)
        state = q.new_zeros((len(runs), heads.num_v, heads.k_dim, heads.v_dim))
        if step.cache is None:
            return step.unpad(_delta_scan(q, k, v, log_g, beta, state)[0]).flatten(1)
        fresh = torch.tensor([run.context_len == 0 for run in runs])
        state = torch.where(fresh[:, None, None, None], state, step.cache.state[layer, [run.slot for run in runs]])
        out, states = _delta_scan(q, k, v, log_g, beta, state)
        _keep_states(step.cache, states, a, b, layer, step)
        return step.unpad(out).flatten(1)

    def gated_rms_norm(self, x: Tensor, gate: Tensor, weight: Tensor, eps: float) -> Tensor:
        heads = x.unflatten(-1, (-1, weight.shape[0]))
        return self.rms_norm(heads, weight, eps).flatten(1) * F.silu(gate)

    def norm_rope(
        self, x: Tensor, weight: Tensor, eps: float, heads: AttentionHeads, step: TorchStep, *, gated: bool
    ) -> Tensor:
        x = x.unflatten(-1, (-1, 2, heads.head_dim))[:, :, 0] if gated else x.unflatten(-1, (-1, heads.head_dim))
        x = self.rms_norm(x, weight, eps)
        cos, sin = (torch.from_numpy(t).to(x.dtype)[:, None] for t in (step.tokens.rope_cos, step.tokens.rope_sin))
        half = heads.rotary_dim // 2
        first, second, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
        return torch.cat([first * cos - second * sin, second * cos + first * sin, rest], dim=-1).flatten(1)

    def attention(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        query_gate: Tensor,
        layer: int,
        heads: AttentionHeads,
        step: TorchStep,
    ) -> Tensor:
        q = step.pad(query.unflatten(-1, (heads.num_q, heads.head_dim)))
        k, v = (x.unflatten(-1, (heads.num_kv, heads.head_dim)) for x in (key, value))
        contexts = torch.zeros(len(step.tokens.runs), dtype=torch.long)
        if step.cache is None:
            k, v = step.pad(k), step.pad(v)
        else:
            contexts = torch.tensor([run.context_len for run in step.tokens.runs])
            k, v = _through_pages(step.cache, k, v, layer, step.tokens)
        # Row t of a run sees positions up to context_len + t.
        last = contexts[:, None] + torch.arange(q.shape[1])
        mask = torch.arange(k.shape[1]) <= last[:, :, None]
        out = F.scaled_dot_product_attention(
            q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), attn_mask=mask[:, None], enable_gqa=True
        )
        gate = query_gate.unflatten(-1, (heads.num_q, 2, heads.head_dim))[:, :, 1].flatten(1)
        return step.unpad(out.transpose(1, 2)).flatten(1) * torch.sigmoid(gate)

    def head(self, x: Tensor, table: Tensor, step: TorchStep) -> Tensor:
        return F.linear(x[torch.from_numpy(step.tokens.wanted_rows.astype(np.int64))], table)

    def replay(
        self, conv: Tensor, decay: Tensor, dt_bias: Tensor, layer: int, heads: DeltaHeads, step: TorchStep
    ) -> None:
        assert isinstance(step.batch, CommitBatch)
        cache = step.cache
        assert cache is not None
        for commit in step.batch.commits:
            n, slot = commit.num_tokens, commit.slot
            fresh = float(commit.context_len > 0)
            x = torch.cat([cache.conv[layer, slot] * fresh, cache.pending_qkv[layer, slot, :n]])[None]
            a, b = cache.pending_ab[layer, slot, :, :n]
            q, k, v, log_g, beta = delta_inputs(_conv_silu(x, conv), a[None], b[None], decay, dt_bias, heads)
            before = cache.state[layer, [slot]] * fresh
            _, states = _delta_scan(_tiled(q, heads), _tiled(k, heads), v, log_g, beta, before)
            cache.state[layer, slot] = states[-1][0]
            cache.conv[layer, slot] = x[0, n:]


def _conv_silu(x: Tensor, weight: Tensor) -> Tensor:
    """x [runs, taps - 1 + tokens, channels], weight [channels, taps] -> [runs, tokens, channels]."""
    taps = weight.shape[1]
    tokens = x.shape[1] - (taps - 1)
    return F.silu(sum(((x[:, i : i + tokens] * weight[:, i]) for i in range(taps)), start=x.new_zeros(())))


def delta_inputs(
    qkv: Tensor, a: Tensor, b: Tensor, decay: Tensor, dt_bias: Tensor, heads: DeltaHeads
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """[runs, tokens, ...] -> q, k [.., num_k, k_dim], v [.., num_v, v_dim], log g, beta [.., num_v]."""
    k_size = heads.num_k * heads.k_dim
    q, k, v = qkv.split([k_size, k_size, heads.num_v * heads.v_dim], dim=-1)
    q, k = (x.unflatten(-1, (heads.num_k, heads.k_dim)) for x in (q, k))
    q, k = (x * torch.rsqrt(x.square().sum(-1, keepdim=True) + 1e-6) for x in (q, k))
    q = q * heads.k_dim**-0.5
    return q, k, v.unflatten(-1, (heads.num_v, heads.v_dim)), decay * F.softplus(a + dt_bias), torch.sigmoid(b)


def _tiled(x: Tensor, heads: DeltaHeads) -> Tensor:
    """[.., num_k, k_dim] -> [.., num_v, k_dim]: v head j uses k head j mod num_k."""
    return x[:, :, torch.arange(heads.num_v) % heads.num_k]


def _delta_scan(
    q: Tensor, k: Tensor, v: Tensor, log_g: Tensor, beta: Tensor, state: Tensor
) -> tuple[Tensor, list[Tensor]]:
    """The definition, token by token. Returns out [runs, tokens, heads, v_dim] and the state after every token."""
    outs: list[Tensor] = []
    states: list[Tensor] = []
    for t in range(q.shape[1]):
        state = state * log_g[:, t, :, None, None].exp()
        delta = (v[:, t] - torch.einsum("rhkv,rhk->rhv", state, k[:, t])) * beta[:, t, :, None]
        state = state + k[:, t, :, :, None] * delta[:, :, None, :]
        outs.append(torch.einsum("rhkv,rhk->rhv", state, q[:, t]))
        states.append(state)
    return torch.stack(outs, dim=1), states


def _keep_conv(cache: TorchCache, x: Tensor, layer: int, batch: Batch) -> None:
    """x [runs, taps - 1 + tokens, channels] with the carried columns in front: keep each run's last columns."""
    taps_before = cache.shape.conv_kernel - 1
    for i, run in enumerate(batch.runs):
        for n, slot in run.snapshots:
            cache.conv[layer, slot] = x[i, n : n + taps_before]
        if run.commit:
            cache.conv[layer, run.slot] = x[i, run.num_tokens : run.num_tokens + taps_before]
        else:
            cache.pending_qkv[layer, run.slot, : run.num_tokens] = x[i, taps_before : taps_before + run.num_tokens]


def _keep_states(cache: TorchCache, states: list[Tensor], a: Tensor, b: Tensor, layer: int, step: TorchStep) -> None:
    pending = torch.stack([step.pad(a), step.pad(b)], dim=1).detach()  # [runs, 2, longest, num_v]
    for i, run in enumerate(step.tokens.runs):
        for n, slot in run.snapshots:
            cache.state[layer, slot] = states[n - 1][i].detach()
        if run.commit:
            cache.state[layer, run.slot] = states[run.num_tokens - 1][i].detach()
        else:
            cache.pending_ab[layer, run.slot, :, : run.num_tokens] = pending[i, :, : run.num_tokens]


def _through_pages(cache: TorchCache, k: Tensor, v: Tensor, layer: int, batch: Batch) -> tuple[Tensor, Tensor]:
    """Write the runs' keys and values, return all of each sequence's, padded: [runs, longest, kv heads, dim]."""
    page_len = cache.shape.page_len
    longest = max((run.context_len + run.num_tokens for run in batch.runs), default=0)
    gathered = k.new_zeros((2, len(batch.runs), longest, *k.shape[1:]))
    row = 0
    for i, run in enumerate(batch.runs):
        pages = torch.as_tensor(np.asarray(run.pages), dtype=torch.long)
        places = torch.arange(run.context_len + run.num_tokens)
        page, offset = pages[places // page_len], places % page_len
        new = torch.stack([k[row : row + run.num_tokens], v[row : row + run.num_tokens]], dim=1)
        new = _rounded_groups(new) if cache.shape.kv_format == "q8_0" else new.to(cache.kv.dtype)
        cache.kv[layer, page[run.context_len :], :, offset[run.context_len :]] = new
        gathered[:, i, : len(places)] = cache.kv[layer, page, :, offset].transpose(0, 1).to(k.dtype)
        row += run.num_tokens
    return gathered[0], gathered[1]


def _rounded_groups(x: Tensor) -> Tensor:
    """What q8_0 holds of x [..., dim]: the nearest multiples of the group's scale."""
    groups = x.unflatten(-1, (-1, 32))
    scales = (groups.abs().amax(-1, keepdim=True) / 127).to(torch.float16).to(x.dtype)
    codes = torch.where(scales > 0, groups / scales, 0).round().clamp(-127, 127)
    return (codes * scales).flatten(-2)


@dataclass(frozen=True)
class TorchProgram:
    """A network, computed anew at each run."""

    network: Network[Tensor]
    backend: "TorchBackend"

    def outputs(self, batch: Batch | CommitBatch) -> Outputs[Tensor]:
        """The network's outputs as tensors in the backend's type."""
        with torch.no_grad():
            return self.network(TorchOps(), TorchStep(batch, self.backend.cache, self.backend.dtype))

    def run(self, batch: Batch | CommitBatch) -> Result:
        out = self.outputs(batch)
        hidden = None if out.hidden is None else _to_numpy(out.hidden)
        if out.head is None or isinstance(batch, CommitBatch):
            return Result(hidden=hidden)
        logits = out.head if batch.edits is None else _edited(out.head, batch.edits)
        if batch.top_k == 0:
            return Result(logits=_to_numpy(logits), hidden=hidden)
        # A stable sort puts the lower id first among equals.
        values, ids = torch.sort(logits, dim=-1, descending=True, stable=True)
        return Result(
            top_ids=ids[:, : batch.top_k].to(torch.int32).numpy(),
            top_logits=_to_numpy(values[:, : batch.top_k]),
            logsumexp=_to_numpy(torch.logsumexp(out.head, dim=-1)) if batch.logsumexp else None,
            hidden=hidden,
        )


class TorchBackend:
    """`Backend[Tensor]`: weights as tensors of one float type (quantised formats hold their dequantised values)."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        self.dtype = dtype
        self.cache: TorchCache | None = None

    def add_matrix(
        self, name: str, shape: tuple[int, int], format: Format, windows: Windows, source: Format | None = None
    ) -> Tensor:
        weight = torch.empty(shape, dtype=self.dtype)
        for row, values in windows:
            weight[row : row + len(values)] = torch.from_numpy(_through_format(widened(values), format))
        return weight

    def read_files(self, progress: Progress | None = None) -> None:
        """Nothing was left to read."""

    def add_vector(self, name: str, values: Float32) -> Tensor:
        return torch.from_numpy(values.copy()).to(self.dtype)

    def open_cache(self, shape: CacheShape) -> None:
        self.cache = TorchCache(shape, self.dtype)

    def copy_slot(self, source: int, target: int) -> None:
        assert self.cache is not None
        self.cache.state[:, target] = self.cache.state[:, source]
        self.cache.conv[:, target] = self.cache.conv[:, source]

    def copy_page(self, source: int, target: int) -> None:
        assert self.cache is not None
        self.cache.kv[:, target] = self.cache.kv[:, source]

    def save_state(self, slot: int, pages: Sequence[int]) -> None:
        """Beside the pages, where a state in f64 has room; they hold NaN, so that nobody takes them for keys."""
        cache = self.cache
        assert cache is not None
        _check_state_pages(cache.shape, slot, pages)
        cache.kv[:, pages] = torch.nan
        cache.saved[tuple(pages)] = cache.state[:, slot].clone(), cache.conv[:, slot].clone()

    def load_state(self, pages: Sequence[int], slot: int) -> None:
        cache = self.cache
        assert cache is not None
        _check_state_pages(cache.shape, slot, pages)
        if tuple(pages) not in cache.saved or not cache.kv[:, pages].isnan().all():
            raise KernelError(f"the pages {list(pages)} hold no state, or something was written to them since")
        cache.state[:, slot], cache.conv[:, slot] = cache.saved[tuple(pages)]

    def compile(self, network: Network[Tensor], *, max_tokens: int) -> TorchProgram:
        return TorchProgram(network, self)


def _check_state_pages(shape: CacheShape, slot: int, pages: Sequence[int]) -> None:
    if not 0 <= slot < shape.num_slots or any(not 0 <= page < shape.num_pages for page in pages):
        raise KernelError(f"slot {slot} or one of the pages {list(pages)} does not exist")
    if len(set(pages)) < len(pages):
        raise KernelError(f"a page is named twice for a state: {list(pages)}")


def _through_format(values: Float32, format: Format) -> Float32:
    """What remains of `values` [rows, cols] after storing them in `format`, f32."""
    if format == BF16:
        return torch.from_numpy(values).to(torch.bfloat16).float().numpy()
    if format == Q8_0:
        blocks = values.reshape(len(values), -1, Q8_0.block_len)
        d = np.abs(blocks).max(-1, keepdims=True) / np.float32(127)
        inverse = np.divide(np.float32(1), d, out=np.zeros_like(d), where=d != 0)
        scaled = blocks * inverse
        quants = np.trunc(scaled + np.copysign(np.float32(0.5), scaled))  # halves away from zero, as C's roundf
        return (quants * d.astype(np.float16).astype(np.float32)).reshape(values.shape)
    if format.block_len == 1:
        return values
    raise UsageError(f"the torch ops have no {format.name} weights")


def _edited(logits: Tensor, edits: LogitEdits) -> Tensor:
    """`logits` [wanted, vocab] with the changes of `LogitEdits`."""
    rows = torch.from_numpy(np.repeat(np.arange(len(logits)), np.diff(edits.row_starts)))
    place = rows, torch.from_numpy(edits.token_ids.astype(np.int64))
    bias, repetition, offset = torch.from_numpy(edits.values).to(logits.dtype).unbind(-1)
    x = logits[place] + bias
    return logits.index_put(place, torch.where(x > 0, x / repetition, x * repetition) + offset)


def _to_numpy(x: Tensor) -> Float32:
    return x.to(torch.float32).numpy()
