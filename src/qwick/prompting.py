"""What callers ask, as requests to an engine, and the answer's text that will grow from each: the model's own manner.

The manner of a model is its chat template, its tokenizer, and the sampling that its files or its card advise.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypedDict

from qwick import pocket
from qwick.describe import sampling_advice
from qwick.engine.constraint import Grammar
from qwick.engine.request import Request, Stats
from qwick.errors import QwickError, TemplateError, UsageError
from qwick.model.source import Source
from qwick.sampling.defaults import with_defaults
from qwick.sampling.logprobs import Scored
from qwick.sampling.params import SamplingParams
from qwick.tags import Tags
from qwick.text.answer import Answer
from qwick.text.chat_template import ChatTemplate
from qwick.text.quoting import Piece
from qwick.text.segments import CLOSE, Segments, begins_in_thought
from qwick.text.tokenizer import Tokenizer
from qwick.text.tool_calls import ToolCalls
from qwick.text.tools import NO_TOOLS, Tools, with_read_arguments
from qwick.text.turns import begun_answer, message_starts, next_turn, unshared_len

Message = Mapping[str, Any]
Prompt = str | Sequence[int]


class SamplingOptions(TypedDict, total=False):
    """Fields of SamplingParams; those left out, or None, are the model's defaults: its own files', else its card's."""

    temperature: float | None
    top_k: int | None
    top_p: float | None
    min_p: float | None
    presence_penalty: float | None
    frequency_penalty: float | None
    repetition_penalty: float | None
    logit_bias: Mapping[int, float] | None
    seed: int | None
    max_tokens: int | None
    stop_token_ids: frozenset[int] | None


@dataclass(frozen=True, slots=True)
class Asked:
    """A question on both sides: ids for the engine, and what its tokens are pushed into."""

    request: Request
    answer: Answer

    def scored(self, top: int | None, prompt_from: int | None = None) -> "Asked":
        """The same with log-probabilities (Request.top_logprobs, prompt_logprobs_from)."""
        return Asked(replace(self.request, top_logprobs=top, prompt_logprobs_from=prompt_from), self.answer)


@dataclass(frozen=True, slots=True)
class Choice:
    """One of the texts that may follow a prompt, and the log-probability of each of its tokens."""

    text: str
    token_logprobs: tuple[float, ...]

    @property
    def logprob(self) -> float:
        """Of the whole text."""
        return sum(self.token_logprobs)


@dataclass(frozen=True, slots=True)
class Scores:
    """Of all choices, in the order in which they were given. Tokens of all of them, the prompt's for each anew."""

    choices: tuple[Choice, ...]
    prompt_tokens: int
    cached_tokens: int

    @classmethod
    def of(cls, texts: Iterable[str], found: Iterable[tuple[Sequence[Scored], Stats]]) -> "Scores":
        """From what each text's scoring told."""
        told = list(found)
        scored = [tuple(logprob for logprob, _ in scores) for scores, _ in told]
        choices = tuple(Choice(text, logprobs) for text, logprobs in zip(texts, scored, strict=True))
        return cls(choices, sum(s.prompt_tokens for _, s in told), sum(s.cached_tokens for _, s in told))

    @property
    def best(self) -> Choice:
        """The likeliest text; the first of equal ones."""
        return max(self.choices, key=lambda choice: choice.logprob)


class Prompting:
    """Of one model. `prepare` comes before the first question; it takes 0.1 to 1 s, beside the loading of weights.

    keeps  whether the engine remembers prompts, so that it wants to know where later ones may part from them
    Raises CheckpointError and TemplateError for the model's files.
    """

    def __init__(self, found: Path, source: Source, *, keeps: bool) -> None:
        self._found, self._metadata, self.config, self._keeps = found, source.metadata, source.config, keeps
        self._advice = sampling_advice(found, source.metadata)
        self.template = ChatTemplate.open(found, source.metadata, is_own=found == pocket.FOLDER)

    def prepare(self) -> None:
        """Read the vocabulary, and what else the first question needs."""
        self.tokenizer = Tokenizer.open(self._found, self._metadata)
        self._tags = Tags(self.tokenizer, self.config.vocab_size)
        self.template.prepare()

    @property
    def thinks_by_default(self) -> bool:
        return self.template.thinks_by_default(self.config.hidden_size)

    def continuation(
        self, prompt: Prompt, stop: str | Sequence[str], sampling: SamplingOptions, grammar: Grammar | None = None
    ) -> Asked:
        """Of a text or ids as they are: control tokens written in a text count as such."""
        ids = self.tokenizer.encode(prompt, allow_special=True) if isinstance(prompt, str) else prompt
        params = self.params(sampling, think=self.thinks_by_default)
        boundaries = (len(ids),) if self._keeps and ids else ()
        return Asked(Request(tuple(ids), params, boundaries, grammar=grammar), self._answer(stop, None))

    def chat(
        self,
        messages: Sequence[Message],
        think: bool | None,
        stop: str | Sequence[str],
        sampling: SamplingOptions,
        tools: Tools = NO_TOOLS,
        grammar: Grammar | None = None,
        thinking_budget: int | None = None,
        *,
        loop_guard: bool = False,
        continues: bool = False,
    ) -> Asked:
        """By the chat template. `think` None: as the model does by default.

        thinking_budget  tokens that the thought may take before it is ended, gracefully; 0: do not think
        continues        the last message is how the answer begins: text that the prompt ends with

        A model without tokens of its own for the tags of a call has a required one begin in its prompt, so that it
        thinks nothing before. Raises TemplateError and UsageError.
        """
        calls = self._tags.calls(tools)
        if grammar is not None and tools.may_call and calls is None:
            raise UsageError(
                "this model has no token that begins a call, so an answer with a grammar calls no tools; ask with "
                "tool_choice none, or without one of them"
            )
        begun_call = tools.beginning if calls is None else ""
        think = False if thinking_budget == 0 else think
        if begun_call and think:
            raise UsageError("a call that tool_choice requires begins the answer; ask without thinking, or with auto")
        think = self.thinks_by_default and not begun_call if think is None else think
        params = self.params(self._without_calls(sampling) if tools.forbidden else sampling, think=think)
        begun = messages[-1] if continues and messages else None
        asked = messages if begun is None else messages[:-1]
        pieces = self._render(asked, think, tools)
        rendered = "".join(piece.text for piece in pieces)
        thought = self._tags.thought(thinking_budget) if begins_in_thought(rendered) and not begun_call else None
        depends = grammar or thinking_budget or (calls and calls.required)
        if thought is None and begins_in_thought(rendered) and depends:
            raise UsageError(f"this model has no token for {CLOSE}, where its answer begins; ask with think=False")
        segments: Segments | ToolCalls | None = Segments(rendered)
        if begun is not None:
            if tools.offered or grammar is not None:
                raise UsageError("an answer does not go on from a beginning with tools or a grammar; leave one out")
            more, is_content = begun_answer(begun, pieces)
            pieces += tuple(Piece(text, text in self.tokenizer.added_tokens) for text in more)
            thought, segments = (None, None) if is_content else (thought, segments)
        if tools.may_call and segments is not None:
            segments = ToolCalls(tools, segments)
        pieces += self._tags.pieces(begun_call)
        ids = self.tokenizer.encode_pieces(pieces)
        boundaries = self._boundaries(asked, think, tools, pieces, ids) if self._keeps else ()
        request = Request(
            tuple(ids), params, boundaries, thought=thought, grammar=grammar, loop_guard=loop_guard, calls=calls
        )
        return Asked(request, self._answer(stop, segments, begun_call))

    def scorings(
        self, prompt: Prompt | None, messages: Sequence[Message], think: bool, choices: Iterable[str]
    ) -> list[Request]:
        """Of each choice after a prompt, or where the answer to messages begins: `prompt_scored` is the choice's.

        A choice is encoded alone. Raises UsageError when there is nothing to score.
        """
        asked = self.chat(messages, think, (), {}) if prompt is None else self.continuation(prompt, (), {})
        context = asked.request.token_ids
        encoded = [self.tokenizer.encode(text, allow_special=False) for text in choices]
        if not (context and encoded and all(encoded)):
            raise UsageError(
                "there is nothing to score: neither the prompt, nor the choices, nor one of them may be empty"
            )
        boundaries = tuple(sorted({*asked.request.boundaries, len(context)})) if self._keeps else ()
        params = SamplingParams(temperature=0, max_tokens=1)
        return [Request((*context, *ids), params, boundaries, prompt_logprobs_from=len(context)) for ids in encoded]

    def history(self, messages: Sequence[Message], think: bool | None, tools: Tools = NO_TOOLS) -> Request | None:
        """A chat that ends with an answer, as the next turn's prompt will begin: to be read only.

        None without `keeps`, and where the template takes no next turn or does not begin it as a message of its own.
        """
        think = self.thinks_by_default if think is None else think
        if not self._keeps:
            return None
        try:
            # Templates write an answer's reasoning before a tool's result, not before another question.
            role = "tool" if messages and messages[-1].get("tool_calls") else "user"
            pieces = self._render([*messages, {"role": role, "content": "x"}], think, tools)
        except QwickError:
            return None
        ids = self.tokenizer.encode_pieces(pieces)
        starts = message_starts(pieces, ids, self.tokenizer.encode_pieces)
        if len(starts) < 2:  # the last one is the answer's, the one before it the question's
            return None
        return Request(tuple(ids[: starts[-2]]), self.params({}, think=think), starts[:-1])

    def params(self, sampling: SamplingOptions, *, think: bool) -> SamplingParams:
        """With the model's defaults, a seed, and its stop tokens. Raises UsageError."""
        params = with_defaults(sampling, self._advice, self.config.hidden_size, think=think)
        stops = (token_id for token_id in self.tokenizer.stop_ids if token_id < self.config.vocab_size)
        return params.seeded().stopping_at(stops)

    def close(self) -> None:
        """End what renders templates of unknown origin. Idempotent."""
        self.template.close()

    def _render(self, messages: Sequence[Message], think: bool, tools: Tools) -> tuple[Piece, ...]:
        if tools.offered and not self.template.takes_tools:
            raise TemplateError("the chat template of this model has no place for tools; ask without them")
        messages = with_read_arguments(messages)
        control_tokens = self.tokenizer.added_tokens
        return self.template.render(messages, think=think, control_tokens=control_tokens, tools=tools.offered)

    def _without_calls(self, sampling: SamplingOptions) -> SamplingOptions:
        """The token that begins a call is forbidden, so that the tools may stand in the prompt as they did before."""
        begin = self._tags.begin_call
        if begin is None:
            return sampling
        return {**sampling, "logit_bias": {**(sampling.get("logit_bias") or {}), begin: -math.inf}}

    def _boundaries(
        self, messages: Sequence[Message], think: bool, tools: Tools, pieces: Sequence[Piece], ids: Sequence[int]
    ) -> tuple[int, ...]:
        """Where messages begin, and up to where the next turn's prompt will be the same."""
        encode = self.tokenizer.encode_pieces
        starts = message_starts(pieces, ids, encode)
        try:
            shared = len(ids) - unshared_len(pieces, self._render(next_turn(messages), think, tools), encode)
        except QwickError:
            return starts
        return tuple(sorted({*starts, shared} - {0}))

    def _answer(self, stop: str | Sequence[str], segments: Segments | ToolCalls | None, begun: str = "") -> Answer:
        return Answer(self.tokenizer.token_bytes, [stop] if isinstance(stop, str) else stop, segments, begun)
