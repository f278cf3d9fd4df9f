"""Tags of an answer that are tokens of their own in a model: where its thought ends, where its calls begin and end."""

from qwick.engine.calls import Calls
from qwick.engine.constraint import MAX_CALLS_BYTES, Grammar, GrammarKind
from qwick.engine.guidance import Thought
from qwick.text.call_grammar import calls_text
from qwick.text.quoting import Piece
from qwick.text.segments import CLOSE
from qwick.text.tokenizer import END_TOKENS, Tokenizer
from qwick.text.tools import Tools

_BEGIN_CALL, _END_CALL = "<tool_call>", "</tool_call>"

# What ends a thought at its budget: the words that Qwen gives for it (Qwen3 Technical Report, 2025, section 4.2).
_CLOSING = (
    "\n\nConsidering the limited time by the user, I have to give the solution based on the thinking directly now.\n"
)


class Tags:
    """Of a model with `vocab_size` logits: a token beyond them cannot come."""

    def __init__(self, tokenizer: Tokenizer, vocab_size: int) -> None:
        self._tokenizer, self._vocab_size = tokenizer, vocab_size

    @property
    def begin_call(self) -> int | None:
        """The id that begins a call."""
        return self._token(_BEGIN_CALL)

    def thought(self, budget: int | None) -> Thought | None:
        """What an answer begins with; None where no token of its own ends it."""
        end = self._tokenizer.added_tokens.get(CLOSE)
        if end is None:
            return None
        lead, closing = (tuple(self._tokenizer.encode(text, allow_special=False)) for text in ("\n\n", _CLOSING))
        return Thought(end, lead, budget, closing)

    def calls(self, tools: Tools) -> Calls | None:
        """What calls are held to; None where no tokens of their own begin and end them, or there are none."""
        begin, end, stop = (self._token(name) for name in (_BEGIN_CALL, _END_CALL, END_TOKENS[0]))
        if not tools.may_call or begin is None or end is None or stop is None:
            return None
        text = calls_text(tools.callable, end)
        if len(text) > MAX_CALLS_BYTES:
            text = calls_text(dict.fromkeys(tools.callable), end)
        between = tuple(self._tokenizer.encode("\n", allow_special=False))
        grammar = Grammar(GrammarKind.CALLS, text)
        return Calls(grammar, begin, between, stop, required=bool(tools.required), several=tools.parallel)

    def pieces(self, begun: str) -> tuple[Piece, ...]:
        """The beginning of a call, as a prompt goes on with it."""
        if not begun.startswith(_BEGIN_CALL) or _BEGIN_CALL not in self._tokenizer.added_tokens:
            return (Piece(begun, False),) if begun else ()
        return Piece(_BEGIN_CALL, True), Piece(begun.removeprefix(_BEGIN_CALL), False)

    def _token(self, name: str) -> int | None:
        found = self._tokenizer.added_tokens.get(name)
        return found if found is not None and found < self._vocab_size else None
