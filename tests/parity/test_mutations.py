"""The parity check sees mistakes: each of these, made in the network, its ops or its tables, turns it red.

A check that cannot fail proves nothing. The oracle is computed unmutated; the mutant runs in f32.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from qwick.model import names
from qwick.model.names import Change, TensorSpec
from qwick.model.qwen3_5 import Qwen3_5
from qwick.model.rope import RopeTable
from qwick.ops import torch as ops_module
from qwick.ops.contract import Outputs
from qwick.ops.torch import TorchBackend, TorchCache, TorchOps
from tests.checkpoints import small_config, write_checkpoint
from tests.parity.compare import ParityError, relative_error
from tests.parity.network import SEED, Runner, random_ids
from tests.parity.reference import load_reference, load_tensors, run_f32
from tests.parity.scenario import TOTAL_LEN, compare, walk

MARGIN = 10  # a mutant's error is at least so many tolerances

# Grouped V heads, an untied head, two kv heads of four query heads, and an eps that is not negligible.
CONFIG = small_config(tie_word_embeddings=False, rms_norm_eps=1e-3)

Patch = pytest.MonkeyPatch
MUTATIONS: dict[str, Callable[[Patch], None]] = {}


def mutation(apply: Callable[[Patch], None]) -> Callable[[Patch], None]:
    MUTATIONS[apply.__name__] = apply
    return apply


@pytest.fixture(scope="module")
def setting(tmp_path_factory):
    """Folder, ids, the oracle's parts, and the tolerance of the library's f32 run."""
    folder = write_checkpoint(tmp_path_factory.mktemp("mutations"), CONFIG, SEED)
    ids = random_ids(TOTAL_LEN)
    oracle = Runner(folder, TorchBackend(torch.float64))
    expected = walk(oracle, ids)
    whole = np.concatenate([expected["prompt"], expected["second chunk"]])
    library = run_f32(load_reference(CONFIG, load_tensors(folder)), ids[: len(whole)])
    return folder, ids, expected, relative_error(library.logits, whole).tolerance()


def check(setting) -> float:
    folder, ids, expected, allowed = setting
    return compare(walk(Runner(folder, TorchBackend(torch.float32)), ids), expected, allowed)


def test_without_a_mutation_the_check_passes(setting):
    assert check(setting) < 0.5


# --- weights and tables ----------------------------------------------------------------------------------------------


def _swap_names(patch: Patch, first: str, second: str) -> None:
    """The tensors of one name are loaded as the other's."""
    original = names.file_names

    def swapped(specs, found):
        files = original(specs, found)
        turned = {n: n.replace(first, "#").replace(second, first).replace("#", second) for n in files}
        return {name: files[turned[name]] for name in files}

    patch.setattr("qwick.model.load.file_names", swapped)


@mutation
def swap_the_two_norms_of_a_layer(patch):
    _swap_names(patch, "layers.2.input_layernorm", "layers.2.post_attention_layernorm")


@mutation
def swap_q_norm_and_k_norm(patch):
    _swap_names(patch, "q_norm", "k_norm")


@mutation
def swap_the_two_norms_before_the_mtp_fc(patch):
    _swap_names(patch, "pre_fc_norm_embedding", "pre_fc_norm_hidden")


@mutation
def swap_gate_and_up(patch):
    _swap_names(patch, "layers.1.mlp.gate_proj", "layers.1.mlp.up_proj")


@mutation
def swap_in_proj_a_and_b(patch):
    _swap_names(patch, "in_proj_a", "in_proj_b")


def _change(patch: Patch, which: Callable[[TensorSpec], bool], **fields) -> None:
    original = names.tensor_specs
    patch.setattr(
        "qwick.model.load.tensor_specs",
        lambda config: (dataclasses.replace(s, **fields) if which(s) else s for s in original(config)),
    )


@mutation
def forget_the_one_of_a_zero_centred_norm(patch):
    _change(patch, lambda spec: spec.name == "layers.3.post_attention_layernorm", change=Change.NONE)


@mutation
def add_one_to_the_gated_norm(patch):
    _change(patch, lambda spec: spec.name.endswith("linear_attn.norm"), change=Change.PLUS_ONE)


@mutation
def leave_the_v_rows_grouped(patch):
    _change(patch, lambda spec: spec.name.endswith("in_proj_qkv"), row_order=None)


@mutation
def leave_the_out_proj_columns_grouped(patch):
    _change(patch, lambda spec: spec.name.endswith("out_proj"), col_order=None)


@mutation
def leave_the_decay_rates_grouped(patch):
    _change(patch, lambda spec: spec.name.endswith("A_log"), row_order=None)


@mutation
def leave_the_conv_channels_grouped(patch):
    _change(patch, lambda spec: spec.name.endswith("conv1d"), row_order=None)


@mutation
def use_the_embedding_as_the_untied_head(patch):
    patch.setattr(Qwen3_5, "_head_table", lambda self: self.weights["embed_tokens"])


def _turn_positions(patch: Patch, turn: Callable[[np.ndarray], np.ndarray]) -> None:
    original = RopeTable.angles
    patch.setattr(RopeTable, "angles", lambda self, positions: original(self, turn(positions)))


@mutation
def count_positions_from_one_too_many_after_a_chunk(patch):
    """A constant shift of all is no mistake: rope is relative."""
    _turn_positions(patch, lambda positions: positions + (positions >= 30))


@mutation
def count_positions_of_a_run_from_zero(patch):
    _turn_positions(patch, lambda positions: positions - positions[0])


@mutation
def round_the_rope_exponent(patch):
    original = RopeTable.__init__

    def rounded(self, config):
        original(self, config)
        self._inverse = self._inverse * np.float32(1.001)

    patch.setattr(RopeTable, "__init__", rounded)


# --- ops -------------------------------------------------------------------------------------------------------------


def _wrap_inputs(patch: Patch, turn) -> None:
    """`turn` changes (q, k, v, log g, beta) of the delta rule."""
    original = ops_module._delta_inputs
    patch.setattr(ops_module, "_delta_inputs", lambda *args: turn(*original(*args)))


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
    original = ops_module._delta_inputs

    def unnormalised(qkv, a, b, decay, dt_bias, heads):
        _, _, v, log_g, beta = original(qkv, a, b, decay, dt_bias, heads)
        size = heads.num_k * heads.k_dim
        tiled = torch.arange(heads.num_v) % heads.num_k
        q, k = (x.unflatten(-1, (heads.num_k, -1))[:, :, tiled] for x in (qkv[..., :size], qkv[..., size : 2 * size]))
        return q * heads.k_dim**-0.5, k, v, log_g, beta

    patch.setattr(ops_module, "_delta_inputs", unnormalised)


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


# --- carried state ---------------------------------------------------------------------------------------------------


@mutation
def lose_the_recurrent_state(patch):
    original = ops_module._keep_states

    def lost(cache, states, a, b, layer, step):
        original(cache, states, a, b, layer, step)
        for run in step.tokens.runs:
            if run.commit:
                cache.state[layer, run.slot] = 0

    patch.setattr(ops_module, "_keep_states", lost)


@mutation
def lose_the_convolution_state(patch):
    original = ops_module._keep_conv

    def lost(cache, x, layer, batch):
        original(cache, x, layer, batch)
        for run in batch.runs:
            if run.commit:
                cache.conv[layer, run.slot] = 0

    patch.setattr(ops_module, "_keep_conv", lost)


@mutation
def commit_while_verifying(patch):
    original = ops_module._keep_states

    def committed(cache, states, a, b, layer, step):
        original(cache, states, a, b, layer, step)
        for i, run in enumerate(step.tokens.runs):
            cache.state[layer, run.slot] = states[run.num_tokens - 1][i]

    patch.setattr(ops_module, "_keep_states", committed)


@mutation
def commit_one_token_too_many(patch):
    original = TorchOps.replay

    def more(self, conv, decay, dt_bias, layer, heads, step):
        commits = tuple(dataclasses.replace(c, num_tokens=c.num_tokens + 1) for c in step.batch.commits)
        batch = dataclasses.replace(step.batch, commits=commits)
        return original(self, conv, decay, dt_bias, layer, heads, dataclasses.replace(step, batch=batch))

    patch.setattr(TorchOps, "replay", more)


@mutation
def snapshot_the_state_one_token_late(patch):
    original = ops_module._keep_states

    def late(cache, states, a, b, layer, step):
        original(cache, states, a, b, layer, step)
        for i, run in enumerate(step.tokens.runs):
            for n, slot in run.snapshots:
                cache.state[layer, slot] = states[n][i]

    patch.setattr(ops_module, "_keep_states", late)


@mutation
def snapshot_the_convolution_one_token_late(patch):
    original = ops_module._keep_conv

    def late(cache, x, layer, batch):
        original(cache, x, layer, batch)
        for i, run in enumerate(batch.runs):
            for n, slot in run.snapshots:
                cache.conv[layer, slot] = x[i, n + 1 : n + 1 + cache.conv.shape[2]]

    patch.setattr(ops_module, "_keep_conv", late)


@mutation
def start_from_what_the_slot_holds(patch):
    """A fresh sequence must not see the slot's last owner."""
    original = TorchCache.__init__

    def used(self, shape, dtype):
        original(self, shape, dtype)
        self.state.normal_()
        self.conv.normal_()

    patch.setattr(TorchCache, "__init__", used)
    patch.setattr(ops_module.torch, "where", lambda fresh, zero, held: held)


# --- MTP -------------------------------------------------------------------------------------------------------------


def _draft(patch: Patch, turn) -> None:
    """`turn(self, ops, embedding, hidden, mtp)` makes the input of fc."""

    def draft(self, ops, step):
        w, eps = self.weights, self.config.rms_norm_eps
        mtp = w.under("mtp")
        (x,) = ops.linear(turn(ops, ops.embed(w["embed_tokens"], step), ops.hidden(step), mtp, eps), [mtp["fc"]])
        layer = mtp.under("layers.0")
        normed = ops.rms_norm(x, layer["input_layernorm"], eps)
        x = self._attention(ops, step, x, normed, layer.under("self_attn"), self.config.num_attention_layers)
        hidden = ops.rms_norm(self._mlp(ops, x, layer), mtp["norm"], eps)
        return Outputs(hidden=hidden, head=ops.head(hidden, self._head_table(), step))

    patch.setattr(Qwen3_5, "draft", draft)


@mutation
def leave_the_mtp_hidden_unnormalised(patch):
    def turn(ops, embedding, hidden, mtp, eps):
        return ops.concat(ops.rms_norm(embedding, mtp["pre_fc_norm_embedding"], eps), hidden)

    _draft(patch, turn)


@mutation
def leave_the_mtp_embedding_unnormalised(patch):
    def turn(ops, embedding, hidden, mtp, eps):
        return ops.concat(embedding, ops.rms_norm(hidden, mtp["pre_fc_norm_hidden"], eps))

    _draft(patch, turn)


@mutation
def put_the_mtp_hidden_first(patch):
    def turn(ops, embedding, hidden, mtp, eps):
        embedding = ops.rms_norm(embedding, mtp["pre_fc_norm_embedding"], eps)
        return ops.concat(ops.rms_norm(hidden, mtp["pre_fc_norm_hidden"], eps), embedding)

    _draft(patch, turn)


@mutation
def draft_from_the_hidden_state_before_the_last_norm(patch):
    original = TorchOps.rms_norm
    forward = Qwen3_5.forward

    def unnormed(self, ops, step):
        seen = []
        patch.setattr(TorchOps, "rms_norm", lambda o, x, w, eps: (seen.append(x), original(o, x, w, eps))[1])
        out = forward(self, ops, step)
        patch.setattr(TorchOps, "rms_norm", original)
        return Outputs(hidden=seen[-1], head=out.head)

    patch.setattr(Qwen3_5, "forward", unnormed)


@mutation
def let_the_mtp_block_share_the_last_layers_pages(patch):
    original = Qwen3_5._attention

    def shared(self, ops, step, x, normed, w, layer):
        return original(self, ops, step, x, normed, w, min(layer, self.config.num_attention_layers - 1))

    patch.setattr(Qwen3_5, "_attention", shared)


@mutation
def chain_drafts_on_the_state_before_the_mtp_norm(patch):
    original = Qwen3_5.draft

    def unnormed(self, ops, step):
        out = original(self, ops, step)
        return Outputs(hidden=out.hidden / self.weights["mtp.norm"], head=out.head)

    patch.setattr(Qwen3_5, "draft", unnormed)


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_mutation_turns_the_check_red(setting, monkeypatch, name):
    MUTATIONS[name](monkeypatch)
    with pytest.raises(ParityError) as failure:
        check(setting)
    error, allowed = failure.value.error, failure.value.tolerance
    print(f"{name}: {error / allowed:.0f} tolerances ({failure.value.what})")
    assert error > MARGIN * allowed
