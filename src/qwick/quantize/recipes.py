"""Which format each tensor gets: named mixtures, the same choice as llama.cpp makes (src/llama-quant.cpp).

The idea behind the mixtures (ikawrakow, llama.cpp PR 1684): values, and what leads back from the MLP, suffer most from
coarse weights, and layers at both ends more than those in between; so some of them get more bits.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from qwick.errors import UsageError
from qwick.formats import BF16, F16, F32, Q4_0, Q4_K, Q5_K, Q6_K, Q8_0, Format
from qwick.model.config import ModelConfig
from qwick.model.names import TensorSpec, tensor_specs

_DOWN = "mlp.down_proj"
_SENSITIVE = ("self_attn.v_proj", "linear_attn.in_proj_qkv", _DOWN)


@dataclass(frozen=True, slots=True)
class Recipe:
    """A mixture. `file_type` is its number in `general.file_type` (llama.h, enum llama_ftype).

    format      of most matrices
    sensitive   of the sensitive matrices of some layers; None: of none
    both_ends   these are an eighth at each end and every third between (M); otherwise a few at the start (S)
    """

    name: str
    file_type: int
    format: Format
    sensitive: Format | None = None
    both_ends: bool = False

    def formats(self, config: ModelConfig) -> Mapping[str, Format]:
        """Canonical name -> format, of every matrix of the network. `config` is resolved (tying and MTP are known)."""
        return {spec.name: self._choose(spec, config) for spec in tensor_specs(config) if spec.matrix}

    def _choose(self, spec: TensorSpec, config: ModelConfig) -> Format:
        cols = spec.shape[-1]
        chosen = self.format
        if spec.name == "lm_head" or (spec.name == "embed_tokens" and config.tie_word_embeddings):
            if chosen.is_blocks and chosen is not Q8_0:
                chosen = Q6_K if cols % chosen.block_len == 0 else Q8_0
        elif self.sensitive and spec.name.endswith(_SENSITIVE) and self._has_more_bits(spec.name, config):
            chosen = self.sensitive
        # Rows that do not divide into blocks of 256; llama.cpp takes q5_0 or q5_1 for some of them.
        return chosen if cols % chosen.block_len == 0 else Q8_0

    def _has_more_bits(self, name: str, config: ModelConfig) -> bool:
        num_blocks = config.num_layers + config.has_mtp
        block = config.num_layers if name.startswith("mtp.") else int(name.split(".")[1])
        eighth = num_blocks // 8
        if not self.both_ends:
            return block < (eighth if name.endswith(_DOWN) else 4)
        return block < eighth or block >= 7 * num_blocks // 8 or (block - eighth) % 3 == 2


RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe("F32", 0, F32),
        Recipe("F16", 1, F16),
        Recipe("BF16", 32, BF16),
        Recipe("Q8_0", 7, Q8_0),
        Recipe("Q6_K", 18, Q6_K),
        Recipe("Q5_K_M", 17, Q5_K, Q6_K, both_ends=True),
        Recipe("Q5_K_S", 16, Q5_K),
        Recipe("Q4_K_M", 15, Q4_K, Q6_K, both_ends=True),
        Recipe("Q4_K_S", 14, Q4_K, Q5_K),
        Recipe("Q4_0", 2, Q4_0),
    )
}


def recipe_named(name: str) -> Recipe:
    """The recipe called `name`, in any case. Raises UsageError naming all."""
    recipe = RECIPES.get(name.upper())
    if recipe is None:
        raise UsageError(f"unknown format {name!a:.40}; known: {', '.join(RECIPES)}")
    return recipe


def recipe_formats(name: str, config: ModelConfig) -> Mapping[str, Format]:
    """Canonical name -> format of every matrix of the resolved `config`, by the recipe called `name`."""
    return recipe_named(name).formats(config)
