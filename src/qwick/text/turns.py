"""How far the prompt of a chat's next turn will agree with this turn's: what is worth keeping in memory."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from qwick.errors import UsageError
from qwick.text.quoting import Piece
from qwick.text.segments import CLOSE, begins_in_thought

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


def begun_answer(message: Mapping[str, Any], prompt: Sequence[Piece]) -> tuple[list[str], bool]:
    """What follows `prompt` when the answer begins like `message`, and whether its content has begun.

    Where the prompt leaves a thought open, it is the message's own, closed as templates close it before content.
    Raises UsageError for what an answer cannot begin with.
    """
    content, reasoning = message.get("content") or "", message.get("reasoning_content") or ""
    if message.get("role") != "assistant" or not isinstance(content, str) or not isinstance(reasoning, str):
        raise UsageError("an answer goes on from a message of the assistant, with text as its content")
    if message.get("tool_calls"):
        raise UsageError("an answer does not go on from tool calls; give their results")
    if not begins_in_thought("".join(piece.text for piece in prompt)):
        if reasoning:
            raise UsageError("an answer does not go on from reasoning_content where the model does not think")
        return [content] if content else [], bool(content)
    if not content:
        return [reasoning] if reasoning else [], False
    return [f"{reasoning}\n" if reasoning else "\n", CLOSE, f"\n\n{content}"], True


def _common_len(left: Sequence[object], right: Sequence[object]) -> int:
    pairs = zip(left, right, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(left), len(right)))
