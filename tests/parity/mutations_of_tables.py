"""Mistakes in names, orders and angles: any backend shows them."""

import dataclasses
from collections.abc import Callable

import numpy as np

from qwick.model import names
from qwick.model.names import Change, TensorSpec
from qwick.model.qwen3_5 import Qwen3_5
from qwick.model.rope import RopeTable
from tests.parity.mutations import Mutations, Patch

mutation = Mutations()


def _swap_names(patch: Patch, first: str, second: str) -> None:
    """The tensors of one name are loaded as the other's."""
    original = names.file_names

    def swapped(specs, found):
        files = original(specs, found)
        turned = {n: n.replace(first, "#").replace(second, first).replace("#", second) for n in files}
        return {name: files[turned[name]] for name in files}

    patch.setattr("qwick.model.source.file_names", swapped)


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
        "qwick.model.source.tensor_specs",
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
