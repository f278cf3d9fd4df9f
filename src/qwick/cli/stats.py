"""What an answer cost, as a line and as JSON."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qwick.ops.native import NativeBackend
    from qwick.streams import Completion

JSON_STATS = {  # key of `--json-stats` -> what it means, for docs/cli.md
    "model": "MODEL as it was given",
    "format": "`--format` as it was given; null: as the files have it",
    "load_seconds": "until the model was ready",
    "isa": "instruction set of the kernels",
    "threads": "threads that decoded",
    "threads_batch": "threads that read the prompt",
    "weight_bytes": "weights in memory",
    "cache_bytes": "KV cache and recurrent state in memory",
    "prompt_tokens": "tokens of the prompt, the template's too",
    "cached_tokens": "of these, tokens that were in memory from a turn before",
    "prompt_seconds": "until the first token of the answer",
    "prompt_tokens_per_second": "null when there was no time to measure",
    "generated_tokens": "tokens of reasoning and answer, the stop token too",
    "decode_seconds": "from the first token to the last",
    "decode_tokens_per_second": "of the tokens after the first; null when there are none",
    "finish_reason": "`stop` or `length`",
}


def stats_line(completion: "Completion") -> str:
    """Counts, speeds, time to the first token."""
    stats = completion.stats
    decoded = stats.generated_tokens - 1  # the first token comes with the prompt
    new_tokens = stats.prompt_tokens - stats.cached_tokens
    kept = f" ({new_tokens:,} new)" if stats.cached_tokens else ""
    return (
        f"prompt {stats.prompt_tokens:,} tokens{kept}, {_rate(new_tokens, stats.prompt_seconds)} · "
        f"answer {stats.generated_tokens:,} tokens, {_rate(decoded, stats.decode_seconds)} · "
        f"first token after {stats.prompt_seconds:.3f} s · ended by {completion.finish_reason}"
    )


def measured(completion: "Completion", backend: "NativeBackend") -> dict[str, Any]:
    """What `JSON_STATS` lists, but for what was asked."""
    stats = completion.stats
    return {
        "isa": backend.isa,
        "threads": backend.threads,
        "threads_batch": backend.threads_batch,
        "weight_bytes": backend.weight_bytes,
        "cache_bytes": backend.cache_bytes,
        "prompt_tokens": stats.prompt_tokens,
        "cached_tokens": stats.cached_tokens,
        "prompt_seconds": stats.prompt_seconds,
        "prompt_tokens_per_second": _per_second(stats.prompt_tokens - stats.cached_tokens, stats.prompt_seconds),
        "generated_tokens": stats.generated_tokens,
        "decode_seconds": stats.decode_seconds,
        "decode_tokens_per_second": _per_second(stats.generated_tokens - 1, stats.decode_seconds),
        "finish_reason": completion.finish_reason,
    }


def _rate(num_tokens: int, seconds: float) -> str:
    rate = _per_second(num_tokens, seconds)
    return "too few to time" if rate is None else f"{rate:,.1f} tok/s"


def _per_second(num_tokens: int, seconds: float) -> float | None:
    return num_tokens / seconds if num_tokens > 0 and seconds > 0 else None
