"""What may be asked of the server and of batches: OpenAI's API, with the fields that its friends added.

What is not a field here is refused by its name. What clients send by habit, and what changes nothing here, is taken and
named in `warnings` of the answer.
"""

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field

from qwick.api.form import Biases, Count, Form, Habit, TokenId, TokenIds, Unsupported
from qwick.api.messages import Message, NamedTool, Tool
from qwick.api.structure import Structured
from qwick.api.thinking import Thinking
from qwick.errors import UsageError
from qwick.prompting import SamplingOptions
from qwick.sampling.logprobs import MOST_TOP
from qwick.sampling.params import MAX_SEED

MOST_CHOICES = 32
MOST_STOPS = 64

Stops: TypeAlias = str | Annotated[list[str], Field(max_length=MOST_STOPS)]
Messages: TypeAlias = Annotated[list[Message], Field(min_length=1, fail_fast=True)]

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


class StreamOptions(Form):
    """Of a stream."""

    include_usage: bool | None = None
    include_obfuscation: Habit = None


class Asking(Structured):
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
    logit_bias: Biases | None = None
    loop_guard: bool | None = None
    seed: Annotated[int, Field(ge=-1, le=MAX_SEED)] | None = None
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
        """Raises UsageError where nothing is streamed: whole answers always have it."""
        if self.stream_options is not None and not self.stream:
            raise UsageError("stream_options are of streams; set stream to true, or leave them out")
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
            seed=None if self.seed in (None, -1) else (self.seed + index) & MAX_SEED,  # -1: any, to llama.cpp
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


class ChatPrompt(Thinking):
    """What the prompt of a chat is made of."""

    tools: Annotated[list[Tool], Field(fail_fast=True)] | None = None
    tool_choice: Literal["auto", "none", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    continue_final_message: bool | None = None
    add_generation_prompt: bool | None = None

    @property
    def choice(self) -> str | dict[str, Any]:
        """Of a tool; auto where there is none. Raises UsageError for a call without tools."""
        choice = self.tool_choice
        if not self.tools and choice not in (None, "auto", "none"):
            raise UsageError("tool_choice wants a call, and no tools are offered")
        if not self.tools:
            return "auto"
        return choice.model_dump() if isinstance(choice, NamedTool) else choice or "auto"

    def plain_tools(self) -> list[dict[str, Any]]:
        """As AsyncLLM.chat takes them."""
        return [tool.model_dump(exclude_none=True, exclude={"function": {"strict"}}) for tool in self.tools or ()]

    def continues(self, messages: list[Message]) -> bool:
        """Whether the last message is the beginning of the answer. Raises UsageError."""
        if self.continue_final_message:
            if self.add_generation_prompt:
                raise UsageError("add_generation_prompt contradicts continue_final_message: it begins a new message")
            if messages[-1].role != "assistant":
                raise UsageError("continue_final_message wants the last message to be the assistant's")
        elif self.add_generation_prompt is False:
            raise UsageError("add_generation_prompt is false; without continue_final_message no answer would begin")
        return bool(self.continue_final_message)

    def asked(self, messages: list[Message], think: bool | None) -> dict[str, Any]:
        """Arguments of AsyncLLM.chat and encode; `think` where nothing is said. Raises UsageError."""
        said = self.thinks
        return {
            "think": think if said is None else said,
            "tools": self.plain_tools(),
            "tool_choice": self.choice,
            "parallel_tool_calls": self.parallel_tool_calls is not False,
            "thinking_budget": self.budget,
            "continues": self.continues(messages),
        }


class ChatRequest(Asking, ChatPrompt):
    """Of /v1/chat/completions. Thinking may be switched in the ways of all clients, which must agree."""

    messages: Messages
    max_tokens: Count | None = None
    max_completion_tokens: Count | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MOST_TOP)] | None = None
    modalities: list[Literal["text"]] | None = None
    audio: Unsupported = None
    functions: Unsupported = None
    function_call: Unsupported = None
    prediction: Unsupported = None
    web_search_options: Unsupported = None

    def plain_messages(self) -> list[dict[str, Any]]:
        """As AsyncLLM.chat takes them."""
        return [message.plain() for message in self.messages]

    @property
    def longest(self) -> int | None:
        """Most tokens of an answer. Raises UsageError."""
        given = {self.max_tokens, self.max_completion_tokens} - {None}
        if len(given) > 1:
            raise UsageError("max_tokens and max_completion_tokens differ; give one of them")
        return next(iter(given), None)

    @property
    def top(self) -> int | None:
        """Of how many likeliest tokens log-probabilities are wanted; None: of none. Raises UsageError."""
        if self.top_logprobs is not None and not self.logprobs:
            raise UsageError("top_logprobs wants logprobs to be true")
        return (self.top_logprobs or 0) if self.logprobs else None

    def warnings(self) -> list[str]:
        given = ["parallel_tool_calls"] if self.parallel_tool_calls is not None and not self.tools else []
        if any(message.name is not None for message in self.messages):
            given.append("messages.name")
        return super().warnings() + [f"{name} is not used here" for name in given]


Ids: TypeAlias = Annotated[TokenIds, Field(min_length=1)]
Prompts: TypeAlias = (
    str
    | Ids
    | Annotated[list[str], Field(min_length=1, fail_fast=True)]
    | Annotated[list[Ids], Field(min_length=1, fail_fast=True)]
)


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


class TokenizeRequest(ChatPrompt):
    """Of /tokenize: a text, under either of its names, or a chat with all that makes its prompt."""

    model: str | None = None
    prompt: str | None = None
    content: str | None = None
    messages: Messages | None = None
    return_token_strs: bool | None = None

    def text(self) -> str | None:
        """None: a chat. Raises UsageError."""
        given = [text for text in (self.prompt, self.content) if text is not None]
        if len(given) + (self.messages is not None) != 1:
            raise UsageError("give one of prompt, content or messages")
        of_chats = sorted(self.model_fields_set & ChatPrompt.model_fields.keys())
        if of_chats and self.messages is None:
            raise UsageError(f"{of_chats[0]} is of chats: give messages, or leave it out")
        return given[0] if given else None


class DetokenizeRequest(Form):
    """Of /detokenize."""

    model: str | None = None
    tokens: TokenIds
