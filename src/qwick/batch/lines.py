"""One line of a batch's input, as what is to be asked. Two forms, which a file may mix:

plain   {"prompt": TEXT or IDS} or {"messages": […]}, sampling options by our names, "stop", "think", "choices", "id"
OpenAI  {"custom_id", "method", "url", "body"} of the batch API, for chat completions and completions

Lines are hostile: whatever is wrong with one is a UsageError that names it, and what is not known is wrong.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, cast

from qwick.errors import UsageError

if TYPE_CHECKING:  # pydantic takes 0.2 s to import, which only lines of this form need
    from qwick.api.requests import Asking, ChatRequest, CompletionRequest

    Form = TypeVar("Form", ChatRequest, CompletionRequest)

MAX_LINE_BYTES = 16 << 20  # a million tokens, the longest context there is, are some 5 MB of text
SAMPLING = (
    "max_tokens temperature top_k top_p min_p presence_penalty frequency_penalty repetition_penalty logit_bias seed"
).split()
PLAIN = frozenset({"prompt", "messages", "stop", "think", "choices", "id", *SAMPLING})
CHAT_URL, COMPLETION_URL = "/v1/chat/completions", "/v1/completions"
_LINE = frozenset({"custom_id", "method", "url", "body"})
_NOT_HERE = ("echo", "logprobs", "top_logprobs", "best_of")  # fields of the API that batches do not take
_USUAL: dict[str, Any] = {
    "tools": [],
    "tool_choice": "auto",
    "parallel_tool_calls": True,
    "thinking_budget": None,
    "continues": False,
}

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Question:
    """What a line asks: `messages` of a chat, else a `prompt` to be continued. None: left to the defaults.

    choices  texts of which the likeliest is wanted, instead of an answer; empty: an answer
    options  more arguments of AsyncLLM.chat or generate: tools, a grammar, …
    warnings of what was taken and is not used
    """

    messages: list[Mapping[str, Any]] | None = None
    prompt: str | list[int] | None = None
    think: bool | None = None
    stop: tuple[str, ...] | None = None
    choices: tuple[str, ...] = ()
    sampling: Mapping[str, Any] = field(default_factory=dict[str, Any])
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    warnings: tuple[str, ...] = ()


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
    return _chat_body(body) if url == CHAT_URL else _completion_body(body)


def _chat_body(body: Json) -> Question:
    """As the server takes it (api/requests.py)."""
    from qwick.api.requests import ChatRequest

    asked = _read_body(ChatRequest, body)
    arguments = asked.asked(asked.messages, None)
    think = arguments.pop("think")
    options = {name: value for name, value in arguments.items() if value != _USUAL[name]}
    return _asked(asked, asked.longest, options, messages=asked.plain_messages(), think=think)


def _completion_body(body: Json) -> Question:
    from qwick.api.requests import CompletionRequest

    asked = _read_body(CompletionRequest, body)
    prompts = asked.prompts()
    if len(prompts) > 1 or prompts[0] != asked.prompt:
        raise UsageError("prompt must be one text, or its token ids; for several texts write several lines")
    return _asked(asked, asked.max_tokens, {}, prompt=prompts[0])


def _read_body(form: "type[Form]", body: Json) -> "Form":
    from pydantic import ValidationError

    from qwick.api.problems import problem_of

    try:
        asked = form.model_validate(body)
    except ValidationError as error:
        raise UsageError(problem_of(error.errors(include_url=False)).message) from None
    if asked.stream:
        raise UsageError("stream must be false: a batch has no one to stream to")
    if asked.n not in (None, 1):
        raise UsageError("n must be 1; repeat the line with other seeds")
    for name in _NOT_HERE:
        if getattr(asked, name, None) not in (None, False):
            raise UsageError(f"{name} is not taken in batches; ask the server")
    return asked


def _asked(asked: "Asking", longest: int | None, options: Json, **said: Any) -> Question:
    sampling = {name: value for name, value in asked.sampling(0, longest).items() if value is not None}
    grammar = asked.constraint()
    options |= {} if grammar is None else {"grammar": grammar}
    options |= {} if asked.loop_guard is None else {"loop_guard": asked.loop_guard}
    stop = None if asked.stop is None else asked.stops()
    return Question(stop=stop, sampling=sampling, options=options, warnings=tuple(asked.warnings()), **said)


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
