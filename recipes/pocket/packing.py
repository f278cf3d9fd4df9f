"""Conversations laid into rows of equal length, several to a row, which a network with state resets keeps apart."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Conversation:
    """Token ids, which of them are to be learned, and the task it belongs to."""

    ids: list[int]
    learned: list[bool]
    task: str = ""


@dataclass(frozen=True, slots=True)
class PackedBatch:
    """tokens [rows, length] int64; starts [rows, length] bool: a conversation (or padding) begins here.

    trunk_rows   flat places whose next token is to be learned, ascending; trunk_targets those tokens
    draft_rows   flat places whose next but one is; draft_targets
    """

    tokens: Tensor
    starts: Tensor
    trunk_rows: Tensor
    trunk_targets: Tensor
    draft_rows: Tensor
    draft_targets: Tensor


def pack(lengths: Sequence[int], row_len: int) -> list[list[int]]:
    """Indices by row: the longest first, each into the fullest row that still has room (best fit)."""
    rows: list[list[int]] = []
    by_room: list[list[int]] = [[] for _ in range(row_len + 1)]  # row numbers by the room left
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        room = next((r for r in range(lengths[i], row_len) if by_room[r]), row_len)
        if room == row_len:
            rows.append([])
        row = by_room[room].pop() if room < row_len else len(rows) - 1
        rows[row].append(i)
        by_room[room - lengths[i]].append(row)
    return rows


def make_batch(rows: Sequence[Sequence[Conversation]], row_len: int, pad_id: int) -> PackedBatch:
    """Raises ValueError when a row does not fit."""
    tokens = torch.full((len(rows), row_len), pad_id)
    starts = torch.zeros((len(rows), row_len), dtype=torch.bool)
    learned = torch.zeros((len(rows), row_len + 2), dtype=torch.bool)
    for r, row in enumerate(rows):
        begin = 0
        for c in row:
            end = begin + len(c.ids)
            if end > row_len:
                raise ValueError(f"a row of {row_len} tokens cannot hold {end}")
            tokens[r, begin:end] = torch.tensor(c.ids)
            learned[r, begin:end] = torch.tensor(c.learned)
            starts[r, begin] = True
            begin = end
        if begin < row_len:
            starts[r, begin] = True
    flat = tokens.flatten()
    # A conversation's first two tokens are never learned, so nothing is predicted across a border.
    trunk, draft = (learned[:, ahead : row_len + ahead].flatten().nonzero().squeeze(1) for ahead in (1, 2))
    return PackedBatch(tokens, starts, trunk, flat[trunk + 1], draft, flat[draft + 2])
