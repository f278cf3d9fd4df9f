"""A radix trie over token ids: which of the sequences seen begin as this one does, and how far."""

from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np

from qwick.ops.contract import Int32

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class Node(Generic[T]):
    """The first `end` tokens of some sequences: those of `parent`, then `edge`. `value`: what is known about them."""

    edge: Int32
    parent: "Node[T] | None"
    end: int
    children: "dict[int, Node[T]]" = field(default_factory=dict[int, "Node[T]"])  # by the first id of their edge
    value: T | None = None

    def token_ids(self) -> Int32:
        """All of them, from the first."""
        edges: list[Int32] = []
        node: Node[T] | None = self
        while node is not None:
            edges.append(node.edge)
            node = node.parent
        return np.concatenate(edges[::-1])


class Trie(Generic[T]):
    """No node but the root is without a value and with fewer than two children: as many nodes as twice the values."""

    def __init__(self) -> None:
        self.root: Node[T] = Node(np.empty(0, np.int32), None, 0)

    def walk(self, token_ids: Int32) -> tuple[list[Node[T]], int]:
        """The nodes that `token_ids` pass, root first, and how many leading ids agree with any sequence here."""
        node, at, passed = self.root, 0, [self.root]
        while at < len(token_ids):
            child = node.children.get(int(token_ids[at]))
            if child is None:
                break
            same = common_len(child.edge, token_ids[at:])
            at += same
            if same < len(child.edge):
                break
            node = child
            passed.append(node)
        return passed, at

    def insert(self, token_ids: Int32) -> Node[T]:
        """The node of exactly these ids; the caller gives it a value (or `remove`s it)."""
        passed, at = self.walk(token_ids)
        node = passed[-1]
        if at > node.end:  # they part inside an edge
            node = self._split(node.children[int(token_ids[node.end])], at)
        if at < len(token_ids):
            child: Node[T] = Node(token_ids[at:].copy(), node, len(token_ids))
            node.children[int(token_ids[at])] = child
            node = child
        return node

    def remove(self, node: Node[T]) -> None:
        """Forget a node's value, and the node where nothing else needs it."""
        node.value = None
        while node.parent is not None and node.value is None and len(node.children) < 2:
            parent = node.parent
            if node.children:
                (child,) = node.children.values()
                child.edge = np.concatenate([node.edge, child.edge])
                child.parent = parent
                parent.children[int(node.edge[0])] = child
                return
            del parent.children[int(node.edge[0])]
            node = parent

    def _split(self, node: Node[T], at: int) -> Node[T]:
        """A new node at `at`, inside the edge to `node`."""
        parent = node.parent
        assert parent is not None
        upper: Node[T] = Node(node.edge[: at - parent.end].copy(), parent, at)
        parent.children[int(node.edge[0])] = upper
        node.edge, node.parent = node.edge[at - parent.end :].copy(), upper
        upper.children[int(node.edge[0])] = node
        return upper


def common_len(left: Int32, right: Int32) -> int:
    """How many leading ids are equal."""
    length = min(len(left), len(right))
    unequal = np.flatnonzero(left[:length] != right[:length])
    return int(unequal[0]) if len(unequal) else length
