"""Grammars over a tokenizer's tokens: `engine/constraint.py` by llguidance (github.com/guidance-ai/llguidance).

Nothing of it is imported or made before the first grammar: for 248,320 tokens that takes seconds and 100 MB, once.
"""

import json
import math
from collections.abc import Callable, Iterable
from decimal import Decimal
from functools import partial
from threading import Lock, Thread
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from qwick.engine.constraint import Allowed, ConstraintError, Grammar, GrammarKind
from qwick.errors import UsageError
from qwick.text.tokenizer import END_TOKENS, Tokenizer

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLParserLimits, LLTokenizer

# One line, as Python's json.dumps writes it: what models have seen most of. Free white space would leave less to jump
# over, and some models write it without end.
_JSON: Any = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
MOST_SECONDS = 0.5  # that preparing a grammar may take; all others wait for it
_MOST_MULTIPLE = 10_000  # of `multipleOf`, its point left out: 999,983 takes 20 s
_MOST_DECIMALS = 4
_MAX_DEPTH = 64  # of a schema: its reader is recursive


class TokenConstraints:
    """`Constraints` for answers of `vocab_size` logits; `tokenizer` is asked for when the first grammar comes."""

    def __init__(self, tokenizer: Callable[[], Tokenizer], vocab_size: int) -> None:
        self._open, self._vocab_size = tokenizer, vocab_size
        self._tokens: LLTokenizer | None = None
        self._stop_id = 0
        self._lock, self._preparing = Lock(), Lock()

    def start(self, grammar: Grammar) -> "TokenConstraint":
        """Raises UsageError naming what is wrong with the grammar, or that this model cannot be held to one."""
        text = _llguidance_grammar(grammar)
        from llguidance import LLMatcher

        with self._lock:
            tokens = self._tokens = self._tokens or self._make()
        matcher = self._in_time(partial(LLMatcher, tokens, text, log_level=0, limits=_limits()), grammar.kind)
        constraint = TokenConstraint(matcher, self._vocab_size, self._stop_id)
        try:
            _ = constraint.forced() or constraint.allowed()
        except ConstraintError as error:
            raise UsageError(f"the {grammar.kind} cannot be used: {_one_line(str(error))}") from None
        return constraint

    def _in_time(self, make: "Callable[[], LLMatcher]", kind: GrammarKind) -> "LLMatcher":
        """The library's limits do not bound all that a schema can have it compute: a second for one `multipleOf`.

        It gives the GIL up. What takes too long goes on beside the steps; no other grammar is begun before its end.
        """
        if not self._preparing.acquire(timeout=MOST_SECONDS):
            raise UsageError(f"the {kind} cannot be used now: another grammar takes long to prepare; ask again later")
        found: list[LLMatcher] = []

        def run() -> None:
            try:
                found.append(make())
            finally:
                self._preparing.release()

        thread = Thread(target=run, daemon=True, name="grammar")
        thread.start()
        thread.join(MOST_SECONDS)
        if not found:
            raise UsageError(f"the {kind} takes more than {MOST_SECONDS:g} s to prepare; make it simpler")
        return found[0]

    def _make(self) -> "LLTokenizer":
        from llguidance import LLTokenizer, TokenizerWrapper

        tokenizer = self._open()
        stops = sorted(token_id for token_id in tokenizer.stop_ids if token_id < self._vocab_size)
        if not stops:
            raise UsageError("this model names no token that ends an answer, so its answers cannot follow a grammar")
        ends = [tokenizer.added_tokens.get(name) for name in END_TOKENS]
        self._stop_id = next((token_id for token_id in ends if token_id in stops), stops[0])
        wrapper = TokenizerWrapper(_Tokens(tokenizer, self._vocab_size, self._stop_id))
        return LLTokenizer(cast("Any", wrapper), n_vocab=self._vocab_size, eos_token=stops)


class TokenConstraint:
    """A `Constraint`."""

    def __init__(self, matcher: "LLMatcher", vocab_size: int, stop_id: int) -> None:
        self._matcher, self._vocab_size, self._stop_id = matcher, vocab_size, stop_id
        self._is_over = False

    @property
    def is_over(self) -> bool:
        return self._is_over

    def forced(self) -> list[int]:
        matcher = self._matcher
        if self._is_at_end():
            return [self._stop_id]
        return matcher.compute_ff_tokens()

    def allowed(self) -> Allowed:
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        self._check()
        allowed = np.unpackbits(bits, count=self._vocab_size, bitorder="little").view(np.bool_)
        if not allowed.any():
            raise ConstraintError("nothing may follow")
        return allowed

    def accept(self, token_id: int) -> None:
        self._is_over = self._is_over or (token_id == self._stop_id and self._is_at_end())
        if not self._is_over:
            self._matcher.consume_token(token_id)
            self._check()
            self._is_over = self._matcher.stop_reason() == "EndOfSentence"

    def _is_at_end(self) -> bool:
        """Nothing but the end may follow."""
        self._check()
        if not self._matcher.is_stopped():
            return False
        if not self._matcher.is_accepting():
            raise ConstraintError(self._matcher.stop_reason())
        return True

    def _check(self) -> None:
        if self._matcher.is_error():
            raise ConstraintError(self._matcher.get_error())


class _Tokens:
    """A tokenizer as llguidance wants it. Added tokens are none of an answer's text."""

    def __init__(self, tokenizer: Tokenizer, vocab_size: int, stop_id: int) -> None:
        self._tokenizer = tokenizer
        self.eos_token_id, self.bos_token_id = stop_id, None
        self.special_token_ids = sorted(i for i in tokenizer.added_tokens.values() if i < vocab_size)
        self.tokens = tokenizer.all_bytes(vocab_size)

    def __call__(self, text: bytes) -> list[int]:
        return self._tokenizer.encode(text.decode(), allow_special=False)


def _llguidance_grammar(grammar: Grammar) -> str:
    """In the library's own form. Raises UsageError for what can be seen without it."""
    from llguidance import LLMatcher
    from llguidance.gbnf_to_lark import gbnf_to_lark

    match grammar.kind:
        case GrammarKind.JSON_OBJECT:
            return LLMatcher.grammar_from_json_schema({"type": "object"}, overrides=_JSON)
        case GrammarKind.JSON_SCHEMA:
            return LLMatcher.grammar_from_json_schema(_schema(grammar.text), overrides=_JSON)
        case GrammarKind.REGEX:
            return LLMatcher.grammar_from_regex(grammar.text)
        case GrammarKind.LARK:
            return LLMatcher.grammar_from_lark(grammar.text)
        case GrammarKind.GBNF:
            try:
                return LLMatcher.grammar_from_lark(gbnf_to_lark(grammar.text))
            except Exception as error:  # noqa: BLE001 - a small parser in Python: anything
                raise UsageError(f"the gbnf cannot be used: {_one_line(str(error))}") from None


def _schema(text: str) -> str:
    """A JSON schema. Its depth is checked: the library reads it recursively."""
    try:
        schema = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"the json_schema is not JSON: {error}") from None
    if not isinstance(schema, dict):
        raise UsageError(f"the json_schema must be an object, not {text:.40}")
    _check_schema(cast("object", schema), _MAX_DEPTH)
    return text


def _check_schema(value: object, depth: int) -> None:
    """Of what the library's limits do not bound."""
    if depth < 0:
        raise UsageError(f"the json_schema is nested more than {_MAX_DEPTH} deep")
    children: Iterable[object] = ()
    if isinstance(value, dict):
        entries = cast("dict[str, object]", value)
        children = entries.values()
        _check_multiple(entries.get("multipleOf"))
    elif isinstance(value, list):
        children = cast("list[object]", value)
    for child in children:
        _check_schema(child, depth - 1)


def _check_multiple(value: object) -> None:
    if isinstance(value, int | float) and math.isfinite(value):
        _, digits, exponent = Decimal(str(value)).as_tuple()
        number = int("".join(map(str, digits))) * 10 ** max(int(exponent), 0)
        if number > _MOST_MULTIPLE or int(exponent) < -_MOST_DECIMALS:
            raise UsageError(
                f"the json_schema says multipleOf {value}; at most {_MOST_MULTIPLE:,} are taken, "
                f"with {_MOST_DECIMALS} decimals"
            )


def _limits() -> "LLParserLimits":
    """Less than the library's own, which let a hostile grammar compute for a second, or grow to 500 MB."""
    from llguidance import LLParserLimits

    return LLParserLimits(
        initial_lexer_fuel=1_000_000,
        step_lexer_fuel=200_000,
        step_max_items=50_000,
        max_lexer_states=50_000,
        max_grammar_size=100_000,
        precompute_large_lexemes=False,
        verbose_errors=False,
    )


def _one_line(message: str) -> str:
    return " ".join(message.split())[:300]
