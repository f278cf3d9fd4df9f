"""Answers and errors in the form of OpenAI's API, as plain dicts, for files of batches and for the server."""

from collections.abc import Callable, Iterable, Sequence
from time import time
from typing import Any, Literal

from qwick.engine.request import Stats
from qwick.sampling.logprobs import Scored
from qwick.streams import Completion

Json = dict[str, Any]
ObjectName = Literal["chat.completion", "text_completion"]
TextOf = Callable[[int], bytes]
"""Of a token id its UTF-8 bytes, maybe not whole characters."""


def error_body(message: str, kind: str, param: str | None = None, code: str | None = None) -> Json:
    """What is said instead of an answer. `kind`: invalid_request_error, server_error, …"""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def usage(prompt_tokens: int, completion_tokens: int, cached_tokens: int) -> Json:
    """Counts of tokens; `cached_tokens` of the prompt's were in memory."""
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "prompt_tokens_details": {"cached_tokens": cached_tokens},
    }


def usage_of(stats: Sequence[Stats], per_prompt: int = 1) -> Json:
    """Of all answers to one request, `per_prompt` to each of its prompts: a prompt counts once, as it is read once.

    With the reason why no more of the first was cached.
    """
    prompts = stats[::per_prompt]
    found = usage(
        sum(each.prompt_tokens for each in prompts),
        sum(each.generated_tokens for each in stats),
        sum(each.cached_tokens for each in prompts),
    )
    if stats and (miss := stats[0].miss) is not None:
        told = {"reason": miss.reason.value, "at": miss.at, "message": str(miss)}
        found["prompt_tokens_details"]["cache_miss"] = told
    return found


def whole(form: ObjectName, answer_id: str, model: str, choices: Sequence[Json], used: Json) -> Json:
    """An answer in one piece."""
    return {
        "id": answer_id,
        "object": form,
        "created": int(time()),
        "model": model,
        "choices": choices,
        "usage": used,
    }


def chat_choice(index: int, completion: Completion, logprobs: Json | None = None) -> Json:
    """One answer to a chat."""
    return {
        "index": index,
        "logprobs": logprobs,
        "finish_reason": completion.finish_reason,
        "message": assistant_message(completion),
    }


def assistant_message(completion: Completion) -> Json:
    """An answer as the message that clients keep as history; the reasoning apart from the content."""
    found: Json = {"role": "assistant", "content": completion.text}
    if completion.reasoning:
        found["reasoning_content"] = completion.reasoning
    if completion.tool_calls:
        found |= {
            "content": completion.text or None,
            "tool_calls": [call.as_message() for call in completion.tool_calls],
        }
    return found


def text_choice(index: int, text: str, finish_reason: str | None, logprobs: Json | None = None) -> Json:
    """One continuation of a prompt."""
    return {"index": index, "logprobs": logprobs, "finish_reason": finish_reason, "text": text}


def chat_logprobs(token_ids: Iterable[int], scored: Iterable[Scored], text_of: TextOf) -> Json:
    """Of every generated token: those of the reasoning too, and the one that ended the answer."""

    def entry(token_id: int, logprob: float) -> Json:
        raw = text_of(token_id)
        return {"token": raw.decode(errors="replace"), "logprob": logprob, "bytes": list(raw)}

    content = [
        {**entry(token_id, logprob), "top_logprobs": [entry(*each) for each in top]}
        for token_id, (logprob, top) in zip(token_ids, scored, strict=True)
    ]
    return {"content": content, "refusal": None}


class TextLogprobs:
    """Of a continuation, as the older API writes them: four lists. Push tokens as they come; offsets go on."""

    def __init__(self, text_of: TextOf) -> None:
        self._text_of = text_of
        self._offset = 0  # characters of the tokens so far

    def push(self, token_ids: Iterable[int], scored: Iterable[Scored | None]) -> Json:
        """The lists of these tokens; None: of the prompt's first token nothing can be said."""
        tokens: list[str] = []
        logprobs: list[float | None] = []
        tops: list[dict[str, float] | None] = []
        offsets: list[int] = []
        for token_id, score in zip(token_ids, scored, strict=True):
            text = self._text(token_id)
            tokens.append(text)
            offsets.append(self._offset)
            self._offset += len(text)
            logprobs.append(None if score is None else score[0])
            tops.append(None if score is None else self._top(text, score))
        return {"tokens": tokens, "token_logprobs": logprobs, "top_logprobs": tops, "text_offset": offsets}

    def _top(self, text: str, score: Scored) -> dict[str, float]:
        """By text, of equal ones the likeliest; with the token itself."""
        found: dict[str, float] = {}
        for token_id, logprob in score[1]:
            found.setdefault(self._text(token_id), logprob)
        found.setdefault(text, score[0])
        return found

    def _text(self, token_id: int) -> str:
        return self._text_of(token_id).decode(errors="replace")
