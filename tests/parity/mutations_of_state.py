"""Mistakes in what is carried between runs, and in the MTP block."""

import dataclasses

from qwick.model.qwen3_5 import Qwen3_5
from qwick.ops import torch as ops_module
from qwick.ops.contract import Outputs
from qwick.ops.torch import TorchCache, TorchOps
from tests.parity.mutations import Mutations, Patch

mutation = Mutations()


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
