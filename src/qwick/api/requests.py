"""What may be asked of the server, in the form of OpenAI's API and with the fields that its friends added.

What is not a field here is refused by its name. What clients send by habit, and what changes nothing here, is taken and
named in `warnings` of the answer.
"""

import re
from json import dumps
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from qwick.engine.constraint import Grammar, GrammarKind
from qwick.errors import UsageError
from qwick.prompting import SamplingOptions
from qwick.sampling.logprobs import MOST_TOP
from qwick.sampling.params import MAX_SEED

MOST_CHOICES = 32
MOST_STOPS = 64

_LARK_START = re.compile(r"^start\s*:(?!:)", re.MULTILINE)

Habit: TypeAlias = Annotated[Any, Field(description="Taken and not used; `warnings` of the answer names it.")]
Unsupported: TypeAlias = Annotated[None, Field(description="Not supported: null, or left out.")]
Count: TypeAlias = Annotated[int, Field(ge=1, le=(1 << 31) - 1)]
TokenId: TypeAlias = Annotated[int, Field(ge=0, le=(1 << 31) - 1)]
Stops: TypeAlias = str | Annotated[list[str], Field(max_length=MOST_STOPS)]

HABITS: tuple[str, ...] = (
    "user",
    "metadata",
    "store",
    "service_tier",
    "prompt_cache_key",
    "prompt_cache_retention",
    "safety_identifier",
    "verbosity",
)


class Form(BaseModel):
    """No field beside its own, no number written as text."""

    model_config = ConfigDict(extra="forbid", strict=True)


class StreamOptions(Form):
    """Of a stream."""

    include_usage: bool | None = None
    include_obfuscation: Habit = None


class Asking(Form):
    """What chats and continuations have in common. Null is the same as left out: the model's default."""

    model: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[int, Field(ge=1, le=MOST_CHOICES)] | None = None
    stop: Stops | None = None
    stop_token_ids: Annotated[list[TokenId], Field(max_length=MOST_STOPS)] | None = None
    temperature: Annotated[float, Field(ge=0, le=1e6)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=-1, le=(1 << 31) - 1)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=1e6)] | None = None
    logit_bias: Annotated[dict[str, float], Field(max_length=4096)] | None = None
    seed: Annotated[int, Field(ge=0, le=MAX_SEED)] | None = None
    user: Habit = None
    metadata: Habit = None
    store: Habit = None
    service_tier: Habit = None
    prompt_cache_key: Habit = None
    prompt_cache_retention: Habit = None
    safety_identifier: Habit = None
    verbosity: Habit = None

    @property
    def includes_usage(self) -> bool:
        return bool(self.stream_options and self.stream_options.include_usage)

    def warnings(self) -> list[str]:
        """What was taken and changes nothing."""
        given = [name for name in HABITS if getattr(self, name) is not None]
        if self.stream_options is not None and self.stream_options.include_obfuscation:
            given.append("stream_options.include_obfuscation")
        return [f"{name} is not used here" for name in given]

    def sampling(self, index: int, max_tokens: int | None) -> SamplingOptions:
        """Of the choice with this index: the same seed would give the same answer."""
        return SamplingOptions(
            temperature=self.temperature,
            top_k=0 if self.top_k == -1 else self.top_k,  # all tokens, to vLLM
            top_p=self.top_p,
            min_p=self.min_p,
            presence_penalty=self.presence_penalty,
            frequency_penalty=self.frequency_penalty,
            repetition_penalty=self.repetition_penalty,
            logit_bias=self._bias(),
            seed=None if self.seed is None else (self.seed + index) & MAX_SEED,
            max_tokens=max_tokens,
            stop_token_ids=None if self.stop_token_ids is None else frozenset(self.stop_token_ids),
        )

    def stops(self) -> tuple[str, ...]:
        """Where an answer ends. Raises UsageError."""
        stops = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())
        if "" in stops:
            raise UsageError("stop is an empty text; give what ends an answer, or leave it out")
        return stops

    def _bias(self) -> dict[int, float] | None:
        try:
            return None if self.logit_bias is None else {int(key): value for key, value in self.logit_bias.items()}
        except ValueError:
            raise UsageError("logit_bias has a key that is no token id") from None


class TextPart(Form):
    """A piece of a message's content."""

    type: Literal["text"]
    text: str
    cache_control: Habit = None


class CalledFunction(Form):
    """Of a call: its arguments are a JSON object as text."""

    name: str
    arguments: str


class Call(Form):
    """A call of an earlier answer."""

    id: str | None = None
    type: Literal["function"] = "function"
    function: CalledFunction
    index: Habit = None


class Function(Form):
    """What the model may call: `parameters` is a JSON schema."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(Form):
    """One of those that are offered."""

    type: Literal["function"]
    function: Function


class NamedFunction(Form):
    """Which one."""

    name: str


class NamedTool(Form):
    """The one to be called."""

    type: Literal["function"]
    function: NamedFunction


class Message(Form):
    """One message of a chat. What clients keep of earlier answers may be sent as it came."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[TextPart] | None = None
    reasoning_content: str | None = None
    tool_calls: list[Call] | None = None
    tool_call_id: str | None = None
    name: Habit = None
    refusal: Unsupported = None
    audio: Unsupported = None
    function_call: Unsupported = None
    annotations: Annotated[list[Any], Field(max_length=0)] | None = None

    def plain(self) -> dict[str, Any]:
        """As chat templates take it: `developer` is their `system`."""
        parts = self.content
        content = parts if isinstance(parts, str) else "".join(part.text for part in parts or ())
        role = "system" if self.role == "developer" else self.role
        found: dict[str, Any] = {"role": role, "content": content}
        if self.reasoning_content:
            found["reasoning_content"] = self.reasoning_content
        if self.tool_calls:
            found["tool_calls"] = [call.model_dump(exclude={"index"}, exclude_none=True) for call in self.tool_calls]
        if self.tool_call_id is not None:
            found["tool_call_id"] = self.tool_call_id
        return found


class TemplateOptions(Form):
    """Of the chat template."""

    enable_thinking: bool | None = None


class JsonSchema(Form):
    """Of an answer; `strict` or not, it is kept to."""

    name: str | None = None
    description: str | None = None
    schema_: Annotated[dict[str, Any], Field(alias="schema")]
    strict: bool | None = None


class Format(Form):
    """What answers are written in."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


Effort: TypeAlias = Literal["none", "minimal", "low", "medium", "high", "xhigh"]


class ChatRequest(Asking):
    """Of /v1/chat/completions. Thinking may be switched in the ways of all clients, which must agree."""

    messages: Annotated[list[Message], Field(min_length=1)]
    max_tokens: Count | None = None
    max_completion_tokens: Count | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MOST_TOP)] | None = None
    enable_thinking: bool | None = None
    think: bool | None = None
    chat_template_kwargs: TemplateOptions | None = None
    reasoning_effort: Effort | None = None
    continue_final_message: bool | None = None
    add_generation_prompt: bool | None = None
    response_format: Format | None = None
    regex: str | None = None
    grammar: Annotated[str | None, Field(description="GBNF, or Lark where it has a rule `start:`.")] = None
    thinking_budget: Annotated[int, Field(ge=0, le=(1 << 31) - 1)] | None = None
    modalities: list[Literal["text"]] | None = None
    tools: list[Tool] | None = None
    tool_choice: Literal["auto", "none", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    audio: Unsupported = None
    functions: Unsupported = None
    function_call: Unsupported = None
    prediction: Unsupported = None
    web_search_options: Unsupported = None

    def plain_messages(self) -> list[dict[str, Any]]:
        """As AsyncLLM.chat takes them."""
        return [message.plain() for message in self.messages]

    def plain_tools(self) -> list[dict[str, Any]]:
        """As AsyncLLM.chat takes them."""
        return [tool.model_dump(exclude_none=True, exclude={"function": {"strict"}}) for tool in self.tools or ()]

    @property
    def choice(self) -> str | dict[str, Any]:
        """Of a tool. Raises UsageError where there is none."""
        choice = self.tool_choice
        if not self.tools and choice not in (None, "auto", "none"):
            raise UsageError("tool_choice wants a call, and no tools are offered")
        return choice.model_dump() if isinstance(choice, NamedTool) else choice or "auto"

    def constraint(self) -> Grammar | None:
        """What the answer, behind its thought, must be. Raises UsageError."""
        format = self.response_format
        found: list[Grammar] = []
        if format is not None and (format.json_schema is None) == (format.type == "json_schema"):
            raise UsageError("response_format has a json_schema if, and only if, that is its type")
        if format is not None and format.json_schema is not None:
            found.append(Grammar(GrammarKind.JSON_SCHEMA, dumps(format.json_schema.schema_)))
        elif format is not None and format.type == "json_object":
            found.append(Grammar(GrammarKind.JSON_OBJECT))
        if self.regex is not None:
            found.append(Grammar(GrammarKind.REGEX, self.regex))
        if self.grammar is not None:
            is_lark = _LARK_START.search(self.grammar) is not None
            found.append(Grammar(GrammarKind.LARK if is_lark else GrammarKind.GBNF, self.grammar))
        if len(found) > 1:
            raise UsageError("give one of response_format, regex and grammar")
        return found[0] if found else None

    @property
    def thinks(self) -> bool | None:
        """Of the places where clients say it; None: left to the model. Raises UsageError when they contradict."""
        kwargs = self.chat_template_kwargs
        said = {
            "enable_thinking": self.enable_thinking,
            "think": self.think,
            "chat_template_kwargs.enable_thinking": kwargs.enable_thinking if kwargs else None,
            "reasoning_effort": None
            if self.reasoning_effort is None
            else self.reasoning_effort not in ("none", "minimal"),
        }
        found = {name: value for name, value in said.items() if value is not None}
        if len(set(found.values())) > 1:
            raise UsageError(f"{' and '.join(found)} contradict each other: does the model think or not?")
        return next(iter(found.values()), None)

    @property
    def longest(self) -> int | None:
        """Most tokens of an answer. Raises UsageError."""
        given = {self.max_tokens, self.max_completion_tokens} - {None}
        if len(given) > 1:
            raise UsageError("max_tokens and max_completion_tokens differ; give one of them")
        return next(iter(given), None)

    @property
    def continues(self) -> bool:
        """Whether the last message is the beginning of the answer. Raises UsageError."""
        if self.continue_final_message:
            if self.add_generation_prompt:
                raise UsageError("add_generation_prompt contradicts continue_final_message: it begins a new message")
            if self.messages[-1].role != "assistant":
                raise UsageError("continue_final_message wants the last message to be the assistant's")
        elif self.add_generation_prompt is False:
            raise UsageError("add_generation_prompt is false; without continue_final_message no answer would begin")
        return bool(self.continue_final_message)

    @property
    def top(self) -> int | None:
        """Of how many likeliest tokens log-probabilities are wanted; None: of none. Raises UsageError."""
        if self.top_logprobs is not None and not self.logprobs:
            raise UsageError("top_logprobs wants logprobs to be true")
        return (self.top_logprobs or 0) if self.logprobs else None

    def warnings(self) -> list[str]:
        given = ["parallel_tool_calls"] if self.parallel_tool_calls is not None and not self.tools else []
        if any(tool.function.strict for tool in self.tools or ()):
            given.append("tools.function.strict")
        if any(message.name is not None for message in self.messages):
            given.append("messages.name")
        return super().warnings() + [f"{name} is not used here" for name in given]


Ids: TypeAlias = Annotated[list[TokenId], Field(min_length=1)]
Prompts: TypeAlias = str | Ids | Annotated[list[str], Field(min_length=1)] | Annotated[list[Ids], Field(min_length=1)]


class CompletionRequest(Asking):
    """Of /v1/completions: texts or token ids, continued as they are."""

    prompt: Prompts
    max_tokens: Annotated[int, Field(ge=0, le=(1 << 31) - 1)] | None = None
    echo: bool | None = None
    logprobs: Annotated[int, Field(ge=0, le=MOST_TOP)] | None = None
    best_of: Count | None = None
    suffix: Unsupported = None

    def prompts(self) -> list[str | list[int]]:
        """One or several, `n` choices of each. Raises UsageError."""
        prompt: Any = self.prompt
        is_one = isinstance(prompt, str) or isinstance(prompt[0], int)
        prompts: list[str | list[int]] = list((prompt,) if is_one else prompt)
        if len(prompts) * (self.n or 1) > 4 * MOST_CHOICES:
            raise UsageError(f"prompt and n ask for more than {4 * MOST_CHOICES} answers; ask in several requests")
        if self.best_of is not None and self.best_of != (self.n or 1):
            raise UsageError("best_of must be n: answers are not ranked here")
        return prompts


class TokenizeRequest(Form):
    """Of /tokenize: a text, under either of its names, or a chat."""

    model: str | None = None
    prompt: str | None = None
    content: str | None = None
    messages: Annotated[list[Message], Field(min_length=1)] | None = None
    enable_thinking: bool | None = None

    def text(self) -> str | None:
        """None: a chat. Raises UsageError."""
        given = [text for text in (self.prompt, self.content) if text is not None]
        if len(given) + (self.messages is not None) != 1:
            raise UsageError("give one of prompt, content or messages")
        if self.enable_thinking is not None and self.messages is None:
            raise UsageError("enable_thinking is of chats: give messages, or leave it out")
        return given[0] if given else None


class DetokenizeRequest(Form):
    """Of /detokenize."""

    model: str | None = None
    tokens: list[TokenId]
