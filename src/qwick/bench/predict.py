"""What a model will do on a machine, reckoned from the machine's limits: no download, no weights. Pure arithmetic.

A decoded token reads every weight once (the embedding is only gathered), reads and writes the recurrent states, and
reads the keys and values: bytes, at the rate of the kernels of each weight's family. A prompt token takes a
multiply-add for every weight outside the head. Both rates were measured on matrices alone; `DECODE_SHARE` and
`PROMPT_SHARE` say how much of them a whole step keeps, measured with real steps.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from qwick.bench.limits import MachineLimits
from qwick.cache.spec import CacheSpec
from qwick.engine.config import EngineConfig
from qwick.formats import F32, Family, Format
from qwick.model.config import ModelConfig
from qwick.model.names import TensorSpec, tensor_specs

DECODE_SHARE = 0.97  # Qwen3.5-0.8B shapes on an AVX2 machine: 0.99 (Q4_K_M), 1.0 (Q8_0), 0.96 (BF16); docs/LOG.md
PROMPT_SHARE = 0.88  # the same: 0.82 to 0.97, 0.80 to 0.98, 0.80 to 0.90
DELTA_SHARE = 0.45  # of the matrix rate: the delta rule's two passes over a state (docs/LOG.md)
NARROW_COLS = 1536  # hidden sizes up to here count as narrow
PROMPT_LEN = 512  # tokens of the prompt whose speed is predicted
TOKENIZER_BYTES = 150 << 20  # the whole vocabulary, while it is made: a long text needs it; a short one takes 8 MiB
PROGRAM_BYTES = 60 << 20  # Python and the libraries
TOKENIZER_SECONDS = 0.06  # the part that a short prompt needs, beside the weights
PROGRAM_SECONDS = 0.45  # Python, imports, the file's header, the template
FIRST_PROMPT_LEN = 40  # a question of 20 tokens: so few take twice the time for each


@dataclass(frozen=True, slots=True)
class Prediction:
    """One model, one recipe, one machine. Bytes and seconds; rates in tokens per second.

    decode_rate     one sequence with a short context
    prompt_rate     a prompt of PROMPT_LEN tokens
    start_seconds   from the command to the first token, the file being in the page cache
    fits            whether all of it fits into the memory that is available now
    """

    file_bytes: int
    weight_bytes: int
    cache_bytes: int
    other_bytes: int
    decode_rate: float
    prompt_rate: float
    start_seconds: float
    fits: bool

    @property
    def memory_bytes(self) -> int:
        return self.weight_bytes + self.cache_bytes + self.other_bytes


@dataclass(frozen=True, slots=True)
class _Work:
    """What the tensors of one family come to."""

    read_bytes: int = 0  # of weights for a decoded token
    madds: int = 0  # for a prompt token

    def plus(self, read_bytes: int, madds: int) -> "_Work":
        return _Work(self.read_bytes + read_bytes, self.madds + madds)


def predict(
    config: ModelConfig, formats: Mapping[str, Format], limits: MachineLimits, *, context_len: int = 4096
) -> Prediction:
    """`formats`: of each matrix by canonical name, as a recipe chooses them; f32 where it says nothing."""
    specs = list(tensor_specs(config))
    stored = {spec.name: formats.get(spec.name, F32) if spec.matrix else F32 for spec in specs}
    file_bytes = sum(stored[s.name].num_bytes(*_matrix_shape(s)) for s in specs)
    weight_bytes = sum(stored[s.name].family.num_bytes(*_matrix_shape(s)) for s in specs)
    cache = _cache(config, context_len)
    work = _work_by_family(config, specs, stored)
    prompt_seconds = _prompt_token_seconds(config, work, limits)
    load = sum(
        stored[s.name].num_bytes(*_matrix_shape(s)) / limits.families[stored[s.name].family].load_bytes
        for s in specs
        if s.matrix and stored[s.name].family in limits.families
    )
    load += file_bytes / (limits.copy_bytes * limits.threads_batch) if limits.copy_bytes else 0.0
    other_bytes = PROGRAM_BYTES + TOKENIZER_BYTES + _activation_bytes(config)
    return Prediction(
        file_bytes=file_bytes,
        weight_bytes=weight_bytes,
        cache_bytes=cache.total_bytes,
        other_bytes=other_bytes,
        decode_rate=1 / _decode_seconds(config, cache, work, limits),
        prompt_rate=1 / prompt_seconds,
        start_seconds=PROGRAM_SECONDS + max(TOKENIZER_SECONDS, load) + FIRST_PROMPT_LEN * prompt_seconds,
        fits=weight_bytes + cache.total_bytes + other_bytes <= limits.available_bytes,
    )


def _work_by_family(
    config: ModelConfig, specs: list[TensorSpec], stored: Mapping[str, Format]
) -> Mapping[Family, _Work]:
    head = "embed_tokens" if config.tie_word_embeddings else "lm_head"
    work: dict[Family, _Work] = {}
    for spec in specs:
        if spec.name.startswith("mtp.") or spec.name == "embed_tokens" != head:
            continue  # not read; one row a token
        family = stored[spec.name].family
        num_bytes = family.num_bytes(*_matrix_shape(spec))
        madds = prod(spec.shape) if spec.matrix and spec.name != head else 0
        work[family] = work.get(family, _Work()).plus(num_bytes, madds)
    return work


def _decode_seconds(
    config: ModelConfig, cache: CacheSpec, work: Mapping[Family, _Work], limits: MachineLimits
) -> float:
    narrow = config.hidden_size <= NARROW_COLS
    weights = sum(part.read_bytes / _decode_bytes(family, limits, narrow) for family, part in work.items())
    states = 2 * cache.state_bytes / limits.read_bytes  # read and written
    return (weights + states) / DECODE_SHARE


def _prompt_token_seconds(config: ModelConfig, work: Mapping[Family, _Work], limits: MachineLimits) -> float:
    weights = sum(part.madds / _prompt_madds(family, limits) for family, part in work.items())
    delta, attention = config.delta, config.attention
    num_delta = config.num_layers - config.num_attention_layers
    state_madds = num_delta * delta.num_v * 2 * delta.k_dim * delta.v_dim / DELTA_SHARE
    # Scores and values over half the prompt on average.
    attended = config.num_attention_layers * attention.num_q * attention.head_dim * PROMPT_LEN
    return (weights + (state_madds + attended) / limits.matrix_madds) / PROMPT_SHARE


def _decode_bytes(family: Family, limits: MachineLimits, narrow: bool) -> float:
    rates = limits.families.get(family)
    if rates is None:
        return limits.read_bytes
    return rates.narrow_bytes if narrow else rates.decode_bytes


def _prompt_madds(family: Family, limits: MachineLimits) -> float:
    rates = limits.families.get(family)
    return limits.matrix_madds if rates is None else rates.prompt_madds


def _cache(config: ModelConfig, context_len: int) -> CacheSpec:
    one = CacheSpec(config.cache_shape(num_pages=0, num_slots=0))
    return CacheSpec(config.cache_shape(num_pages=one.pages_for(context_len), num_slots=1))


def _activation_bytes(config: ModelConfig) -> int:
    """Values of one step's rows that live at the same time, and as much again for the kernels' scratch."""
    widest = max(config.delta.channels, 2 * config.attention.num_q * config.attention.head_dim)
    width = 3 * config.hidden_size + widest + config.intermediate_size
    return 2 * 4 * width * EngineConfig().step_tokens


def _matrix_shape(spec: TensorSpec) -> tuple[int, int]:
    return prod(spec.shape[:-1]), spec.shape[-1]
