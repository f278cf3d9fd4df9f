"""Grammars over a tokenizer's tokens: `engine/constraint.py` by llguidance (github.com/guidance-ai/llguidance).

Nothing of it is imported or made before the first grammar: for 248,320 tokens that takes seconds and 120 MB, once.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock, Thread
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from qwick.engine.constraint import MOST_KEPT_GRAMMARS, ConstraintError, Grammar, GrammarKind
from qwick.errors import UsageError
from qwick.grammar_texts import calls_grammar, library_grammar, limits, loose_calls_grammar, one_line
from qwick.sampling.sampler import Allowed
from qwick.text.call_grammar import CallGrammar
from qwick.text.tokenizer import END_TOKENS, Tokenizer

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

MOST_SECONDS = 2.0  # that preparing a grammar may take: usually in a thread of its own, on a machine that may be busy
_MOST_CHARACTERS = 400_000  # of a grammar of calls: 0.3 s
_MOST_LOOSE = 500  # characters that tell what calls are not held to
_MOST_KEPT_BYTES = 256 << 10  # of their texts, beside the newest


@dataclass(frozen=True, slots=True)
class _Prepared:
    """matcher: at its beginning, to be copied. stop_id: ends what a whole answer is; None: of a part of one."""

    matcher: "LLMatcher"
    vocab_size: int
    stop_id: int | None
    loose: str


class TokenConstraints:
    """`Constraints` for answers of `vocab_size` logits; `tokenizer` is asked for when the first grammar comes."""

    def __init__(self, tokenizer: Callable[[], Tokenizer], vocab_size: int) -> None:
        self._open, self._vocab_size = tokenizer, vocab_size
        self._tokens: LLTokenizer | None = None
        self._stop_id = 0
        self._lock, self._preparing = Lock(), Lock()
        self._kept: OrderedDict[Grammar, _Prepared | UsageError] = OrderedDict()
        self._keeping = Lock()

    def prepare(self, grammar: Grammar) -> None:
        with self._keeping:
            if grammar in self._kept:
                return
        try:
            self._keep(grammar, self._prepared(grammar))
        except UsageError as error:
            self._keep(grammar, error)

    def start(self, grammar: Grammar) -> "TokenConstraint":
        """Raises UsageError naming what is wrong with the grammar, or that this model cannot be held to one."""
        with self._keeping:
            found = self._kept.get(grammar)
            if found is not None:
                self._kept.move_to_end(grammar)
            if isinstance(found, UsageError):  # told once: a machine that was busy may not be so the next time
                del self._kept[grammar]
        if isinstance(found, UsageError):
            raise UsageError(*found.args)
        if found is None:
            found = self._prepared(grammar)
            self._keep(grammar, found)
        return TokenConstraint(found)

    def warm(self) -> None:
        """Make now what the first grammar would wait for. Raises UsageError for a model that takes none."""
        with self._lock:
            self._tokens = self._tokens or self._make()

    def _keep(self, grammar: Grammar, prepared: _Prepared | UsageError) -> None:
        with self._keeping:
            self._kept[grammar] = prepared
            size = sum(len(kept.text) for kept in self._kept)
            while len(self._kept) > 1 and (len(self._kept) > MOST_KEPT_GRAMMARS or size > _MOST_KEPT_BYTES):
                oldest, _ = self._kept.popitem(last=False)
                size -= len(oldest.text)

    def _prepared(self, grammar: Grammar) -> _Prepared:
        self.warm()
        if grammar.kind is not GrammarKind.CALLS:
            text = library_grammar(grammar)
            return self._in_time(lambda: self._compiled(text, grammar.kind, self._stop_id), grammar.kind)
        try:
            return self._in_time(lambda: self._calls(calls_grammar(grammar.text, MOST_SECONDS / 4)), grammar.kind)
        except UsageError as error:  # not asked for as a grammar: what is less is still better than nothing
            why = str(error)
            return self._in_time(lambda: self._calls(loose_calls_grammar(grammar.text, why)), grammar.kind)

    def _calls(self, found: CallGrammar) -> _Prepared:
        if len(found.lark) > _MOST_CHARACTERS:
            raise UsageError("the schemas are too long to be held to")
        return self._compiled(found.lark, GrammarKind.CALLS, None, "; ".join(found.loose)[:_MOST_LOOSE])

    def _compiled(self, text: str, kind: GrammarKind, stop_id: int | None, loose: str = "") -> _Prepared:
        from llguidance import LLMatcher

        assert self._tokens is not None
        matcher = LLMatcher(self._tokens, text, log_level=0, limits=limits())
        prepared = _Prepared(matcher, self._vocab_size, stop_id, loose)
        first = TokenConstraint(prepared)
        try:
            _ = first.forced() or first.allowed()
        except ConstraintError as error:
            raise UsageError(f"the {kind} cannot be used: {one_line(str(error))}") from None
        return prepared

    def _in_time(self, make: Callable[[], _Prepared], kind: GrammarKind) -> _Prepared:
        """The library's limits do not bound all that a schema can have it compute: a second for one `multipleOf`.

        It gives the GIL up. What takes too long goes on beside the steps; no other grammar is begun before its end.
        """
        if not self._preparing.acquire(timeout=MOST_SECONDS):
            raise UsageError(f"the {kind} cannot be used now: another grammar takes long to prepare; ask again later")
        found: list[_Prepared | UsageError] = []

        def run() -> None:
            try:
                found.append(make())
            except UsageError as error:
                found.append(error)
            finally:
                self._preparing.release()

        thread = Thread(target=run, daemon=True, name="grammar")
        thread.start()
        thread.join(MOST_SECONDS)
        if not found:
            raise UsageError(f"the {kind} takes more than {MOST_SECONDS:g} s to prepare; make it simpler")
        if isinstance(found[0], UsageError):
            raise found[0]
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
    """A `Constraint`, at its beginning."""

    def __init__(self, prepared: _Prepared) -> None:
        self._prepared, self._matcher = prepared, prepared.matcher.deep_copy()
        self._is_over = False
        self.loose = prepared.loose

    @property
    def is_over(self) -> bool:
        return self._is_over

    def again(self) -> "TokenConstraint":
        return TokenConstraint(self._prepared)

    def forced(self) -> list[int]:
        if self._is_at_end():
            return [] if self._prepared.stop_id is None else [self._prepared.stop_id]
        return self._matcher.compute_ff_tokens()

    def allowed(self) -> Allowed:
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        self._check()
        allowed = np.unpackbits(bits, count=self._prepared.vocab_size, bitorder="little").view(np.bool_)
        if not allowed.any():
            raise ConstraintError("nothing may follow")
        return allowed

    def accept(self, token_id: int) -> None:
        self._is_over = self._is_over or (token_id == self._prepared.stop_id and self._is_at_end())
        if not self._is_over:
            self._matcher.consume_token(token_id)
            self._check()
            is_part = self._prepared.stop_id is None
            self._is_over = self._is_at_end() if is_part else self._matcher.stop_reason() == "EndOfSentence"

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
            raise ConstraintError(one_line(self._matcher.get_error()))


class _Tokens:
    """A tokenizer as llguidance wants it. Added tokens are none of an answer's text."""

    def __init__(self, tokenizer: Tokenizer, vocab_size: int, stop_id: int) -> None:
        self._tokenizer = tokenizer
        self.eos_token_id, self.bos_token_id = stop_id, None
        self.special_token_ids = sorted(i for i in tokenizer.added_tokens.values() if i < vocab_size)
        self.tokens = tokenizer.all_bytes(vocab_size)

    def __call__(self, text: bytes) -> list[int]:
        return self._tokenizer.encode(text.decode(), allow_special=False)
