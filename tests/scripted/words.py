"""A vocabulary as a scripted model needs it: how each token is spelled, and which tokens a text may begin with."""

from collections.abc import Iterator

from qwick.text.tokenizer import END_TOKENS, Tokenizer

_LONGEST = 64  # bytes of a token that is tried where a script goes on inside one of its own


class Words:
    """Of `vocab_size` logits.

    spelled  [vocab] the bytes of each token; of special ones their names
    added    ids of the tokens that stand outside the vocabulary proper
    """

    def __init__(self, tokenizer: Tokenizer, vocab_size: int) -> None:
        self._tokenizer = tokenizer
        self.vocab_size = vocab_size
        self.spelled = tokenizer.all_bytes(vocab_size)
        self.added = frozenset(tokenizer.added_tokens.values())
        self._ids = {spelled: token_id for token_id, spelled in enumerate(self.spelled) if spelled}

    def named(self, name: str) -> int:
        """The id of an added token; -1, which no token has, where there is none."""
        return self._tokenizer.added_tokens.get(name, -1)

    @property
    def end(self) -> int:
        """What ends an answer."""
        return next(self.named(name) for name in END_TOKENS if self.named(name) >= 0)

    def encode(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, allow_special=True)

    def text(self, token_ids: list[int]) -> str:
        """Special tokens by their names."""
        return b"".join(self.spelled[token_id] for token_id in token_ids).decode(errors="replace")

    def beginning(self, rest: bytes) -> Iterator[int]:
        """All tokens that `rest` begins with, the shortest first."""
        for length in range(1, min(len(rest), _LONGEST) + 1):
            if (token_id := self._ids.get(rest[:length])) is not None:
                yield token_id
