"""Mistakes in the torch ops."""

import dataclasses

import numpy as np
import torch
import torch.nn.functional as F

from qwick.ops import torch as ops_module
from qwick.ops.torch import TorchOps
from tests.parity.mutations import Mutations, Patch

mutation = Mutations()


def _wrap_inputs(patch: Patch, turn) -> None:
    """`turn` changes (q, k, v, log g, beta) of the delta rule."""
    original = ops_module.delta_inputs
    patch.setattr(ops_module, "delta_inputs", lambda *args: turn(*original(*args)))


@mutation
def drop_the_decay(patch):
    _wrap_inputs(patch, lambda q, k, v, log_g, beta: (q, k, v, 0 * log_g, beta))


@mutation
def drop_beta(patch):
    _wrap_inputs(patch, lambda q, k, v, log_g, beta: (q, k, v, log_g, torch.ones_like(beta)))


@mutation
def drop_the_scale_of_q(patch):
    """The norm behind it undoes it, but for eps."""
    _wrap_inputs(patch, lambda q, k, v, log_g, beta: (q * q.shape[-1] ** 0.5, k, v, log_g, beta))


@mutation
def read_grouped_k_heads(patch):
    """v head j with k head j // ratio instead of j mod nk."""
    _wrap_inputs(patch, lambda q, k, v, g, beta: (_grouped(q), _grouped(k), v, g, beta))


def _grouped(x):
    """From k heads [0, 1, 0, 1] to [0, 0, 1, 1]."""
    return x[:, :, [0, 0, 1, 1]]


@mutation
def drop_the_l2_norm(patch):
    original = ops_module.delta_inputs

    def unnormalised(qkv, a, b, decay, dt_bias, heads):
        _, _, v, log_g, beta = original(qkv, a, b, decay, dt_bias, heads)
        size = heads.num_k * heads.k_dim
        tiled = torch.arange(heads.num_v) % heads.num_k
        q, k = (x.unflatten(-1, (heads.num_k, -1))[:, :, tiled] for x in (qkv[..., :size], qkv[..., size : 2 * size]))
        return q * heads.k_dim**-0.5, k, v, log_g, beta

    patch.setattr(ops_module, "delta_inputs", unnormalised)


@mutation
def swap_q_and_k_of_the_delta_rule(patch):
    _wrap_inputs(patch, lambda q, k, v, log_g, beta: (k * k.shape[-1] ** -0.5, q * q.shape[-1] ** 0.5, v, log_g, beta))


def _scan(patch: Patch, after_decay: bool, output_first: bool) -> None:
    def scan(q, k, v, log_g, beta, state):
        outs, states = [], []
        for t in range(q.shape[1]):
            g = log_g[:, t, :, None, None].exp()
            recalled = torch.einsum("rhkv,rhk->rhv", g * state if after_decay else state, k[:, t])
            if output_first:
                outs.append(torch.einsum("rhkv,rhk->rhv", g * state, q[:, t]))
            delta = (v[:, t] - recalled) * beta[:, t, :, None]
            state = g * state + k[:, t, :, :, None] * delta[:, :, None, :]
            if not output_first:
                outs.append(torch.einsum("rhkv,rhk->rhv", state, q[:, t]))
            states.append(state)
        return torch.stack(outs, dim=1), states

    patch.setattr(ops_module, "_delta_scan", scan)


@mutation
def recall_before_the_decay(patch):
    _scan(patch, after_decay=False, output_first=False)


@mutation
def read_the_state_before_writing_it(patch):
    _scan(patch, after_decay=True, output_first=True)


@mutation
def shift_the_convolution_by_one(patch):
    original = ops_module._conv_silu
    patch.setattr(ops_module, "_conv_silu", lambda x, weight: original(x, weight.roll(1, dims=1)))


@mutation
def turn_the_convolution_around(patch):
    original = ops_module._conv_silu
    patch.setattr(ops_module, "_conv_silu", lambda x, weight: original(x, weight.flip(1)))


@mutation
def put_eps_outside_of_the_root(patch):
    def norm(self, x, weight, eps):
        return x / (x.square().mean(-1, keepdim=True).sqrt() + eps) * weight

    patch.setattr(TorchOps, "rms_norm", norm)


@mutation
def put_eps_on_the_sum_and_not_the_mean(patch):
    def norm(self, x, weight, eps):
        return x * torch.rsqrt((x.square().sum(-1, keepdim=True) + eps) / x.shape[-1]) * weight

    patch.setattr(TorchOps, "rms_norm", norm)


@mutation
def drop_the_gate_of_the_delta_layers(patch):
    def norm(self, x, gate, weight, eps):
        return self.rms_norm(x.unflatten(-1, (-1, weight.shape[0])), weight, eps).flatten(1)

    patch.setattr(TorchOps, "gated_rms_norm", norm)


@mutation
def normalise_after_the_gate(patch):
    def norm(self, x, gate, weight, eps):
        return self.rms_norm((x * F.silu(gate)).unflatten(-1, (-1, weight.shape[0])), weight, eps).flatten(1)

    patch.setattr(TorchOps, "gated_rms_norm", norm)


def _attention(patch: Patch, turn) -> None:
    """`turn` changes (q, k, v, query_gate) of the attention op."""
    original = TorchOps.attention

    def changed(self, query, key, value, query_gate, layer, heads, step):
        return original(self, *turn(query, key, value, query_gate, heads), layer, heads, step)

    patch.setattr(TorchOps, "attention", changed)


@mutation
def drop_the_gate_of_the_attention(patch):
    _attention(patch, lambda q, k, v, gate, heads: (q, k, v, torch.full_like(gate, 40.0)))


@mutation
def read_query_and_gate_as_two_halves(patch):
    def halves(q, k, v, gate, heads):
        return q, k, v, gate.unflatten(-1, (2, heads.num_q, heads.head_dim)).transpose(1, 2).flatten(1)

    _attention(patch, halves)


@mutation
def pair_kv_heads_tiled(patch):
    def tiled(q, k, v, gate, heads):
        order = torch.arange(heads.num_q).unflatten(0, (heads.num_kv, -1)).T.flatten()
        return q.unflatten(-1, (heads.num_q, -1))[:, order].flatten(1), k, v, gate

    _attention(patch, tiled)


@mutation
def scale_the_scores_twice(patch):
    _attention(patch, lambda q, k, v, gate, heads: (q * heads.head_dim**-0.5, k, v, gate))


@mutation
def rotate_keys_one_place_further(patch):
    original = TorchOps.norm_rope

    def further(self, x, weight, eps, heads, step, *, gated):
        if gated:
            return original(self, x, weight, eps, heads, step, gated=gated)
        batch = step.tokens
        turned = dataclasses.replace(
            batch, rope_cos=np.roll(batch.rope_cos, -1, 0), rope_sin=np.roll(batch.rope_sin, -1, 0)
        )
        return original(self, x, weight, eps, heads, dataclasses.replace(step, batch=turned), gated=gated)

    patch.setattr(TorchOps, "norm_rope", further)


@mutation
def rotate_neighbouring_pairs(patch):
    """Pairs (2d, 2d + 1) instead of (d, d + r/2)."""
    original = TorchOps.norm_rope

    def order(heads):
        half, rest = heads.rotary_dim // 2, torch.arange(heads.rotary_dim, heads.head_dim)
        return torch.cat([torch.arange(half) * 2, torch.arange(half) * 2 + 1, rest])

    def neighbouring(self, x, weight, eps, heads, step, *, gated):
        per_head = (-1, 2, heads.head_dim) if gated else (-1, heads.head_dim)
        places = order(heads)
        x = x.unflatten(-1, per_head)[..., places].flatten(1)
        out = original(self, x, weight[places], eps, heads, step, gated=gated)
        return out.unflatten(-1, (-1, heads.head_dim))[..., places.argsort()].flatten(1)

    patch.setattr(TorchOps, "norm_rope", neighbouring)


@mutation
def see_the_next_token(patch):
    original = F.scaled_dot_product_attention

    def early(q, k, v, attn_mask, **options):
        mask = attn_mask | attn_mask.roll(1, dims=-1)
        return original(q, k, v, attn_mask=mask, **options)

    patch.setattr(ops_module.F, "scaled_dot_product_attention", early)


@mutation
def miss_the_first_token(patch):
    original = F.scaled_dot_product_attention

    def blind(q, k, v, attn_mask, **options):
        mask = attn_mask.clone()
        mask[..., 1:, 0] = False
        return original(q, k, v, attn_mask=mask, **options)

    patch.setattr(ops_module.F, "scaled_dot_product_attention", blind)
