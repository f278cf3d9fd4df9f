"""One line of a batch's input, as what is to be asked. Two forms, which a file may mix:

plain   {"prompt": TEXT or IDS} or {"messages": […]}, sampling options by our names, "stop", "think", "choices", "id"
OpenAI  {"custom_id", "method", "url", "body"} of the batch API, for chat completions and completions

Lines are hostile: whatever is wrong with one is a UsageError that names it, and what is not known is wrong.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn, cast

from qwick.errors import UsageError

MAX_LINE_BYTES = 16 << 20  # a million tokens, the longest context there is, are some 5 MB of text
SAMPLING = (
    "max_tokens temperature top_k top_p min_p presence_penalty frequency_penalty repetition_penalty logit_bias seed"
).split()
PLAIN = frozenset({"prompt", "messages", "stop", "think", "choices", "id", *SAMPLING})
CHAT_URL, COMPLETION_URL = "/v1/chat/completions", "/v1/completions"
_LINE = frozenset({"custom_id", "method", "url", "body"})
_BODY = frozenset({"model", "stop", "stream", "n", *SAMPLING})
_CHAT_BODY = _BODY | {"messages", "max_completion_tokens", "enable_thinking", "chat_template_kwargs"}
_COMPLETION_BODY = _BODY | {"prompt"}

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Question:
    """What a line asks: `messages` of a chat, else a `prompt` to be continued. None: left to the defaults.

    choices  texts of which the likeliest is wanted, instead of an answer; empty: an answer
    """

    messages: list[Mapping[str, Any]] | None = None
    prompt: str | list[int] | None = None
    think: bool | None = None
    stop: tuple[str, ...] | None = None
    choices: tuple[str, ...] = ()
    sampling: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True)
class Line:
    """number: counted from 1. given: what came, as far as it could be read. Either a question or what is wrong."""

    number: int
    given: Json
    question: Question | None
    error: str = ""

    @property
    def is_openai(self) -> bool:
        return "custom_id" in self.given or "body" in self.given


def read_line(number: int, data: bytes) -> Line:
    """Never raises: what is wrong is in the line."""
    given: Json = {}
    try:
        given = _object(data)
        line = Line(number, given, None)
        return Line(number, given, _openai(given) if line.is_openai else _plain(given))
    except UsageError as error:
        return Line(number, given, None, str(error))


def _object(data: bytes) -> Json:
    if len(data) > MAX_LINE_BYTES:
        raise UsageError(f"the line has more than {MAX_LINE_BYTES >> 20} MiB; ask for less at once")
    try:
        found: object = json.loads(data, parse_constant=_no_number)
    except UnicodeDecodeError as error:
        raise UsageError(f"the line is not UTF-8 (byte {error.start:,})") from None
    except (ValueError, RecursionError) as error:
        raise UsageError(f"the line is not JSON: {error!s:.200}") from None
    return cast("Json", _of_kind(found, dict, "the line", "a JSON object"))


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _plain(given: Json) -> Question:
    _known(given, PLAIN, "a line")
    if ("prompt" in given) == ("messages" in given):
        raise UsageError("give either prompt or messages")
    if "id" in given and not isinstance(given["id"], str | int):
        raise UsageError("id must be a string or a whole number")
    think = _optional(given, "think", bool, "true or false")
    if think is not None and "prompt" in given:
        raise UsageError("think is of chats: give messages, or leave it out")
    return _question(given, think)


def _openai(given: Json) -> Question:
    _known(given, _LINE, "a line with custom_id")
    _of_kind(given.get("custom_id"), str, "custom_id", "a string")
    if given.get("method") != "POST":
        raise UsageError('method must be "POST"')
    url = given.get("url")
    if url not in (CHAT_URL, COMPLETION_URL):
        raise UsageError(f"url must be {CHAT_URL} or {COMPLETION_URL}")
    body = cast("Json", _of_kind(given.get("body"), dict, "body", "a JSON object"))
    _known(body, _CHAT_BODY if url == CHAT_URL else _COMPLETION_BODY, "body")
    _check_fixed(body)
    needed = "messages" if url == CHAT_URL else "prompt"
    if needed not in body:
        raise UsageError(f"body has no {needed}")
    return _question(_with_max_tokens(body), _thinking(body))


def _check_fixed(body: Json) -> None:
    """What clients send by habit, and of which only one value makes sense in a batch."""
    if body.get("stream") not in (None, False):
        raise UsageError("stream must be false: a batch has no one to stream to")
    if body.get("n") not in (None, 1) or isinstance(body.get("n"), bool):
        raise UsageError("n must be 1; repeat the line with other seeds")
    _optional(body, "model", str, "a string")


def _with_max_tokens(body: Json) -> Json:
    """Under its old and its new name."""
    if body.get("max_completion_tokens") is None:
        return body
    if body.get("max_tokens") is not None:
        raise UsageError("give max_tokens or max_completion_tokens, not both")
    return {**body, "max_tokens": body["max_completion_tokens"]}


def _thinking(body: Json) -> bool | None:
    """Of the two places where clients put it."""
    kwargs = cast("Json", _optional(body, "chat_template_kwargs", dict, "a JSON object") or {})
    _known(kwargs, frozenset({"enable_thinking"}), "chat_template_kwargs")
    found = [_optional(place, "enable_thinking", bool, "true or false") for place in (body, kwargs)]
    said = [think for think in found if think is not None]
    if len(set(said)) > 1:
        raise UsageError("enable_thinking is said twice, differently")
    return said[0] if said else None


def _question(given: Json, think: bool | None) -> Question:
    sampling = {name: given[name] for name in SAMPLING if given.get(name) is not None}
    if "logit_bias" in sampling:
        sampling["logit_bias"] = _bias(sampling["logit_bias"])
    choices = _choices(given)
    if choices and (sampling or given.get("stop") is not None):
        raise UsageError(f"choices are not sampled: leave {next(iter(sampling), 'stop')} out")
    return Question(_messages(given), _prompt(given), think, _texts(given, "stop"), choices, sampling)


def _choices(given: Json) -> tuple[str, ...]:
    choices = _texts(given, "choices")
    if choices == () or isinstance(given.get("choices"), str):
        raise UsageError("choices must be a list of texts")
    if choices and len(set(choices)) < len(choices):
        raise UsageError("two of the choices are the same")
    return choices or ()


def _messages(given: Json) -> list[Mapping[str, Any]] | None:
    if "messages" not in given:
        return None
    messages = cast("list[object]", _of_kind(given["messages"], list, "messages", "a list"))
    if not messages:
        raise UsageError("messages is empty")
    return [cast("Json", _of_kind(message, dict, "each of messages", "a JSON object")) for message in messages]


def _prompt(given: Json) -> str | list[int] | None:
    prompt = given.get("prompt")
    if "prompt" not in given or isinstance(prompt, str):
        return prompt
    ids = cast("list[object]", _of_kind(prompt, list, "prompt", "a text, or a list of token ids"))
    return [cast("int", _of_kind(token_id, int, "each of prompt", "a token id (for several texts write several lines)"))
            for token_id in ids]  # fmt: skip


def _texts(given: Json, name: str) -> tuple[str, ...] | None:
    """A list of texts, or one alone; of neither an empty one."""
    value: object = given.get(name)
    if value is None:
        return None
    texts = [value] if isinstance(value, str) else _of_kind(value, list, name, "a list of texts")
    found = tuple(cast("str", _of_kind(text, str, f"each of {name}", "a text")) for text in cast("list[object]", texts))
    if "" in found:
        raise UsageError(f"a text of {name} is empty")
    return found


def _bias(value: object) -> dict[int, Any]:
    bias = cast("Json", _of_kind(value, dict, "logit_bias", "a JSON object"))
    try:
        return {int(token_id): number for token_id, number in bias.items()}
    except ValueError:
        raise UsageError("a key of logit_bias is no token id") from None


def _optional(given: Json, name: str, kind: type, wanted: str) -> Any:
    return None if given.get(name) is None else _of_kind(given[name], kind, name, wanted)


def _of_kind(value: object, kind: type, name: str, wanted: str) -> object:
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise UsageError(f"{name} is {value!r:.80}; it must be {wanted}")
    return value


def _known(given: Json, names: frozenset[str], where: str) -> None:
    unknown = sorted(given.keys() - names)
    if unknown:
        raise UsageError(f"there is no {unknown[0]!r:.80} in {where}; known: {', '.join(sorted(names))}")
