"""Token ids to text, one at a time, never half a character."""

import codecs
from collections.abc import Callable


class Detokenizer:
    """Joins the bytes of tokens and gives out whole characters.

    A byte-level token may end inside a UTF-8 character; those bytes wait for the next token. Bytes that can no longer
    become a character turn into U+FFFD, one for each maximal part of a sequence (Unicode 15, section 3.9, D93b), so
    the pieces joined equal the whole decoded at once.
    """

    def __init__(self, token_bytes: Callable[[int], bytes]) -> None:
        self._token_bytes = token_bytes
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token_id: int) -> str:
        """The characters that `token_id` completes; often none."""
        return self._decoder.decode(self._token_bytes(token_id))

    def finish(self) -> str:
        """What an unfinished character leaves (U+FFFD or nothing). The detokenizer starts anew."""
        rest = self._decoder.decode(b"", final=True)
        self._decoder.reset()
        return rest
