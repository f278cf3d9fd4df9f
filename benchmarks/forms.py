"""What jump-ahead gains: answers of a nested schema, with forced tokens as runs and without, in turns.

    python benchmarks/forms.py MODEL [--tokens 400] [--rounds 3]

Prints tokens/s of each way and their ratio. Without: every token is drawn, among those that the grammar allows.
"""

import argparse
import json
from time import perf_counter
from typing import Any

from qwick import LLM
from qwick.constraining import TokenConstraint
from qwick.engine.constraint import Grammar

PERSON: dict[str, Any] = {
    "type": "object",
    "properties": {
        "first_name": {"type": "string", "maxLength": 12},
        "last_name": {"type": "string", "maxLength": 12},
        "age_in_years": {"type": "integer", "minimum": 0, "maximum": 120},
        "is_customer": {"type": "boolean"},
        "address": {
            "type": "object",
            "properties": {
                "street": {"type": "string", "maxLength": 16},
                "postal_code": {"type": "string", "pattern": "^[0-9]{5}$"},
                "country": {"enum": ["Germany", "France", "Poland"]},
            },
            "required": ["street", "postal_code", "country"],
            "additionalProperties": False,
        },
    },
    "required": ["first_name", "last_name", "age_in_years", "is_customer", "address"],
    "additionalProperties": False,
}
SCHEMA = {"type": "array", "items": PERSON, "minItems": 3, "maxItems": 3}


def ask(llm: LLM, tokens: int, seed: int) -> tuple[float, int, int]:
    """Seconds behind the first token, tokens in them, and how many of all were forced."""
    stream = llm.chat(
        [{"role": "user", "content": "Three customers."}],
        think=False,
        stream=True,
        grammar=Grammar("json_schema", json.dumps(SCHEMA)),
        seed=seed,
        max_tokens=tokens,
        loop_guard=False,
    )
    stats = stream.completion.stats
    return stats.decode_seconds, stats.generated_tokens - 1, stats.forced_tokens


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--tokens", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    forced = TokenConstraint.forced

    def none_but_the_end(constraint: TokenConstraint) -> list[int]:
        return forced(constraint) if constraint._is_at_end() else []  # noqa: SLF001 - there is no switch for it

    with LLM(options.model, context_len=1024) as llm:
        begun = perf_counter()
        ask(llm, 20, 0)
        print(f"first grammar, vocabulary included: {perf_counter() - begun:.2f} s")
        found: dict[str, list[float]] = {"runs": [0, 0, 0], "drawn": [0, 0, 0]}
        for seed in range(options.rounds):
            for way, method in (("runs", forced), ("drawn", none_but_the_end)):
                TokenConstraint.forced = method
                found[way] = [a + b for a, b in zip(found[way], ask(llm, options.tokens, seed), strict=True)]
        for way, (seconds, tokens, num_forced) in found.items():
            print(f"{way:6} {tokens / seconds:7.1f} tokens/s, {num_forced / tokens:.0%} of {tokens:.0f} forced")
        runs, drawn = (found[way][1] / found[way][0] for way in ("runs", "drawn"))
        print(f"ratio  {runs / drawn:7.2f}")


if __name__ == "__main__":
    main()
