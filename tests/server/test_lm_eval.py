"""What lm-eval's client `local-completions` sends, as benchmarks/lm_eval/run.py recorded it, gets the engine's numbers.

lm-eval itself is too heavy for the project's tools; that script runs it.
"""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from qwick.async_llm import AsyncLLM
from qwick.streams import Completion
from tests.server.running import Running

REQUESTS: list[dict[str, Any]] = json.loads((Path(__file__).parent / "lm_eval_requests.json").read_text())
HEADERS = {"authorization": "Bearer "}  # of a client without a key


def answered(server: Running, body: dict[str, Any]) -> list[dict[str, Any]]:
    status, answer, _ = server.ask("/v1/completions", body, HEADERS)
    assert status == 200, answer
    return sorted(answer["choices"], key=lambda choice: choice["index"])


def engine_says(prompts: Sequence[Sequence[int]], **options: Any) -> list[Completion]:
    async def ask() -> list[Completion]:
        async with AsyncLLM("pocket") as llm:
            return [await llm.generate(prompt, **options).completion() for prompt in prompts]

    return asyncio.run(ask())


@pytest.mark.parametrize("body", [body for body in REQUESTS if body.get("echo")])
def test_choices_are_scored_as_the_engine_scores_them(server: Running, body: dict[str, Any]) -> None:
    found = engine_says(body["prompt"], temperature=0, max_tokens=1, logprobs=1, prompt_logprobs_from=1)
    choices = answered(server, body)
    assert len(choices) == len(body["prompt"]) > 1
    for prompt, choice, completion in zip(body["prompt"], choices, found, strict=True):
        scored = [*completion.prompt_scored, *completion.scored]
        lists = choice["logprobs"]
        assert lists["token_logprobs"] == [None, *(logprob for logprob, _ in scored)]  # to the last bit
        assert len(lists["tokens"]) == len(prompt) + 1  # lm-eval drops the last one, which was generated
        assert lists["top_logprobs"][0] is None
        for top, (logprob, likeliest) in zip(lists["top_logprobs"][1:], scored, strict=True):
            # lm-eval takes a token for the greedy one if it is as likely as the likeliest that is told.
            assert (logprob == max(top.values())) == (logprob == likeliest[0][1])


@pytest.mark.parametrize("body", [body for body in REQUESTS if not body.get("echo")])
def test_answers_are_those_of_the_engine(server: Running, body: dict[str, Any]) -> None:
    found = engine_says(body["prompt"], temperature=0, max_tokens=body["max_tokens"], stop=body["stop"])
    assert [choice["text"] for choice in answered(server, body)] == [completion.text for completion in found]
    assert all(completion.text for completion in found)
