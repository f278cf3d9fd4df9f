"""One line of a batch's output, in the form in which its question came."""

import json
from typing import Any

from qwick.api.answers import chat_choice, error_body, text_choice, usage, whole
from qwick.api.endings import warnings_of
from qwick.batch.lines import CHAT_URL, Line
from qwick.errors import EngineError, QwickError
from qwick.prompting import Scores
from qwick.streams import Completion

Json = dict[str, Any]


def answered(line: Line, completion: Completion, model: str) -> bytes:
    """The line of an answer."""
    stats = completion.stats
    used = usage(stats.prompt_tokens, stats.generated_tokens, stats.cached_tokens)
    if line.is_openai:
        asked = line.question.warnings if line.question else ()
        warnings = [*asked, *warnings_of(completion)]
        told = {"warnings": warnings} if warnings else {}
        return _openai_line(line, 200, _body(line, completion, model, used) | told)
    reasoning = {"reasoning": completion.reasoning} if completion.reasoning else {}
    answer = {"text": completion.text, **reasoning, "finish_reason": completion.finish_reason, "usage": used}
    return _plain_line(line, answer)


def scored(line: Line, scores: Scores) -> bytes:
    """The line of a question that gave choices; of lines in our own form only."""
    choices = [
        {"text": choice.text, "logprob": choice.logprob, "token_logprobs": choice.token_logprobs}
        for choice in scores.choices
    ]
    used = usage(scores.prompt_tokens, 0, scores.cached_tokens)
    return _plain_line(line, {"best": scores.best.text, "choices": choices, "usage": used})


def failed(line: Line, error: str | QwickError) -> bytes:
    """The line of a question that could not be answered."""
    text = str(error)
    is_ours = isinstance(error, EngineError)
    if not line.is_openai:
        return _plain_line(line, {"error": {"type": "engine" if is_ours else "request", "message": text}})
    kind = "server_error" if is_ours else "invalid_request_error"
    return _openai_line(line, 500 if is_ours else 400, error_body(text, kind))


def _body(line: Line, completion: Completion, model: str, used: Json) -> Json:
    if line.given["url"] == CHAT_URL:
        return whole("chat.completion", f"chatcmpl-{line.number}", model, [chat_choice(0, completion)], used)
    choice = text_choice(0, completion.text, completion.finish_reason)
    return whole("text_completion", f"cmpl-{line.number}", model, [choice], used)


def _openai_line(line: Line, status: int, body: Json) -> bytes:
    response = {"status_code": status, "request_id": f"req-{line.number}", "body": body}
    custom_id = line.given.get("custom_id")
    return _dump({"id": f"batch_req-{line.number}", "custom_id": custom_id, "response": response, "error": None})


def _plain_line(line: Line, answer: Json) -> bytes:
    given_id = {"id": line.given["id"]} if "id" in line.given else {}
    return _dump({**given_id, **answer})


def _dump(value: Json) -> bytes:
    """One line. Lone surrogates, which JSON may hold and UTF-8 not, stay escaped."""
    try:
        return json.dumps(value, ensure_ascii=False).encode() + b"\n"
    except UnicodeEncodeError:
        return json.dumps(value).encode() + b"\n"
