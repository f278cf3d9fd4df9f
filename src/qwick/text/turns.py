"""How far the prompt of a chat's next turn will agree with this turn's: what is worth keeping in memory."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from qwick.text.quoting import Piece

Encode = Callable[[Sequence[Piece]], list[int]]


def next_turn(messages: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """`messages` with an answer and a question of which nothing is known yet."""
    return [*messages, {"role": "assistant", "content": "x"}, {"role": "user", "content": "x"}]


def unshared_len(pieces: Sequence[Piece], later: Sequence[Piece], encode: Encode) -> int:
    """How many ids at the end of `encode(pieces)` are not at the beginning of `encode(later)`.

    The official templates write an earlier answer without the think block that a prompt ends with, so the next turn
    parts from this one right after `<|im_start|>assistant\\n`, and its think block is what is not shared. Encodes the
    pieces from where the two part: each is encoded alone.
    """
    at = _common_len(pieces, later)
    parted = _common_len(encode(pieces[at : at + 1]), encode(later[at : at + 1]))
    return len(encode(pieces[at:])) - parted


def message_starts(pieces: Sequence[Piece], ids: Sequence[int], encode: Encode) -> tuple[int, ...]:
    """Where in `ids`, which are `encode(pieces)`, messages begin, but for the first one.

    A prompt that begins with a control token (`<|im_start|>`) has one before each message. () for other prompts.
    """
    if not pieces or not pieces[0].is_control:
        return ()
    (start, *_) = encode(pieces[:1])
    return tuple(index for index, token_id in enumerate(ids) if token_id == start and index > 0)


def _common_len(left: Sequence[object], right: Sequence[object]) -> int:
    pairs = zip(left, right, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(left), len(right)))
