"""What an answer must look like, by the fields that clients of OpenAI, llama.cpp and vLLM know."""

import re
from collections.abc import Callable, Iterator
from json import dumps
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field

from qwick.api.form import Form
from qwick.engine.constraint import Grammar, GrammarKind
from qwick.errors import UsageError

_LARK_START = re.compile(r"^start\s*:(?!:)", re.MULTILINE)
_MOST_CHOICES = 1024

Schema: TypeAlias = dict[str, Any]
Choices: TypeAlias = Annotated[list[str], Field(min_length=1, max_length=_MOST_CHOICES)]
GrammarText: TypeAlias = Annotated[str, Field(description="GBNF, or Lark where it has a rule `start:`.")]


class JsonSchema(Form):
    """Of an answer; `strict` or not, it is kept to."""

    name: str | None = None
    description: str | None = None
    schema_: Annotated[Schema, Field(alias="schema")]
    strict: bool | None = None


class Format(Form):
    """What answers are written in. llama.cpp's clients put the schema beside the type."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None
    schema_: Annotated[Schema | None, Field(alias="schema")] = None

    def constraint(self) -> Grammar | None:
        """Raises UsageError."""
        if (self.json_schema is None) == (self.type == "json_schema") and self.schema_ is None:
            raise UsageError("response_format has a json_schema if, and only if, that is its type")
        if self.schema_ is not None:
            if self.type == "text" or self.json_schema is not None:
                raise UsageError("response_format has a schema beside its type, and says something else too")
            return _schema(self.schema_)
        if self.json_schema is not None:
            return _schema(self.json_schema.schema_)
        return Grammar(GrammarKind.JSON_OBJECT) if self.type == "json_object" else None


class StructuredOutputs(Form):
    """vLLM's: one of them."""

    json_: Annotated[Schema | str | None, Field(alias="json")] = None
    json_object: bool | None = None
    regex: str | None = None
    choice: Choices | None = None
    grammar: GrammarText | None = None


class Structured(Form):
    """Fields of chats and continuations, of which at most one may say something."""

    response_format: Format | None = None
    regex: str | None = None
    grammar: GrammarText | None = None
    json_schema: Schema | None = None
    structured_outputs: StructuredOutputs | None = None
    guided_json: Schema | str | None = None
    guided_regex: str | None = None
    guided_choice: Choices | None = None
    guided_grammar: GrammarText | None = None

    def constraint(self) -> Grammar | None:
        """What the answer, behind its thought, must be. Raises UsageError."""
        found = dict(self._constraints())
        if len(found) > 1:
            raise UsageError(f"{' and '.join(found)} both say what the answer looks like; give one of them")
        return next(iter(found.values()), None)

    def _constraints(self) -> Iterator[tuple[str, Grammar]]:
        if self.response_format is not None and (grammar := self.response_format.constraint()) is not None:
            yield "response_format", grammar
        inner = self.structured_outputs or StructuredOutputs()
        if inner.json_object:
            yield "structured_outputs.json_object", Grammar(GrammarKind.JSON_OBJECT)
        said: list[tuple[str, Any, Callable[[Any], Grammar]]] = [
            ("regex", self.regex, _regex),
            ("grammar", self.grammar, _grammar),
            ("json_schema", self.json_schema, _schema),
            ("guided_json", self.guided_json, _schema),
            ("guided_regex", self.guided_regex, _regex),
            ("guided_choice", self.guided_choice, _choice),
            ("guided_grammar", self.guided_grammar, _grammar),
            ("structured_outputs.json", inner.json_, _schema),
            ("structured_outputs.regex", inner.regex, _regex),
            ("structured_outputs.choice", inner.choice, _choice),
            ("structured_outputs.grammar", inner.grammar, _grammar),
        ]
        for name, value, read in said:
            if value is not None:
                yield name, read(value)


def _schema(schema: Schema | str) -> Grammar:
    return Grammar(GrammarKind.JSON_SCHEMA, schema if isinstance(schema, str) else dumps(schema))


def _regex(text: str) -> Grammar:
    return Grammar(GrammarKind.REGEX, text)


def _grammar(text: str) -> Grammar:
    return Grammar(GrammarKind.LARK if _LARK_START.search(text) else GrammarKind.GBNF, text)


def _choice(texts: list[str]) -> Grammar:
    """One of them, as it is."""
    return Grammar(GrammarKind.REGEX, "|".join(f"({re.escape(text)})" for text in texts))
