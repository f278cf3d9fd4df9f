"""The gated delta rule in chunks, differentiable: what training runs in place of the token-by-token definition.

Within a chunk the rule is a triangular system (WY form, arXiv:2406.06484; gated: arXiv:2412.06464), so all chunks are
solved at once and only the state between them is sequential: two matrix products a chunk.
"""

# torch's own stubs are partial:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import torch
import torch.nn.functional as F
from torch import Tensor

CHUNK_LEN = 64


def delta_chunks(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_g: Tensor,
    beta: Tensor,
    *,
    starts: Tensor | None = None,
    state: Tensor | None = None,
    chunk_len: int = CHUNK_LEN,
) -> tuple[Tensor, Tensor]:
    """S_t = g_t S_(t-1) + k_t (x) beta_t (v_t - g_t S_(t-1)^T k_t);  o_t = S_t^T q_t;  of every run, any float type.

    q, k         [runs, tokens, num_k, k_dim], normalised, q scaled
    v            [runs, tokens, num_v, v_dim]; v head j reads k head j mod num_k (the canonical, tiled order)
    log_g, beta  [runs, tokens, num_v]; log_g = 0 and beta = 0 make a token (padding) invisible
    starts       [runs, tokens] bool: the token begins a document, which sees no state from before (packed runs);
                 a state given applies to what precedes the first start
    state        [runs, num_v, k_dim, v_dim], zero if None
    Returns out [runs, tokens, num_v, v_dim] and the last state.
    """
    runs, tokens, num_k, k_dim = q.shape
    num_v, v_dim = v.shape[2:]
    group, num = num_v // num_k, -(-tokens // chunk_len)
    fill = num * chunk_len - tokens
    if fill:
        q, k, v = (F.pad(x, (0, 0, 0, 0, 0, fill)) for x in (q, k, v))
        log_g, beta = (F.pad(x, (0, 0, 0, fill)) for x in (log_g, beta))
        starts = None if starts is None else F.pad(starts, (0, fill))
    # Heads in front: [runs, group, num_k, chunks, chunk_len, ...], k heads with a group of 1.
    q, k = (x.view(runs, num, chunk_len, 1, num_k, k_dim).permute(0, 3, 4, 1, 2, 5) for x in (q, k))
    v = v.view(runs, num, chunk_len, group, num_k, v_dim).permute(0, 3, 4, 1, 2, 5)
    log_g, beta = (x.view(runs, num, chunk_len, group, num_k).permute(0, 3, 4, 1, 2)[..., None] for x in (log_g, beta))
    total = log_g.cumsum(-2)  # log decay from before the chunk to after the token
    causal = torch.ones(chunk_len, chunk_len, dtype=torch.bool, device=q.device).tril()
    into, left = total.exp(), (total[..., -1:, :] - total).exp()  # the old state to a token; a token to the new state
    keep = total[..., -1:, :].exp()
    if starts is not None:
        document = starts.view(runs, num, chunk_len).cumsum(-1)[:, None, None, ..., None]
        causal = causal & (document == document.mT)
        into, keep = into * (document == 0), keep * (document[..., -1:, :] == 0)
        left = left * (document == document[..., -1:, :])
    ratio = (total - total.mT).masked_fill(~causal, -torch.inf).exp()
    reads = (q @ k.mT) * ratio
    system = (k @ k.mT) * (beta * ratio)
    # delta = u - w @ state, of every chunk at once: u from the values, w from what the old state predicts
    target = torch.cat([beta * v, beta * into * k], dim=-1)
    u, w = torch.linalg.solve_triangular(system, target, upper=False, unitriangular=True).split([v_dim, k_dim], dim=-1)
    writes = (left * k).mT
    now = q.new_zeros((runs, group, num_k, k_dim, v_dim)) if state is None else state.unflatten(1, (group, num_k))
    deltas: list[Tensor] = []
    states: list[Tensor] = []
    for i in range(num):
        first = i == 0 and state is None
        delta = u[..., i, :, :] if first else u[..., i, :, :] - w[..., i, :, :] @ now
        states.append(now)
        deltas.append(delta)
        written = writes[..., i, :, :] @ delta
        now = written if first else keep[..., i, :, :] * now + written
    out = reads @ torch.stack(deltas, dim=3) + (into * q) @ torch.stack(states, dim=3)
    out = out.permute(0, 3, 4, 1, 2, 5).reshape(runs, num * chunk_len, num_v, v_dim)
    return out[:, :tokens], now.flatten(1, 2)
