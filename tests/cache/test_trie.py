"""The trie beside a plain list of sequences, and its shape: no node that nobody needs."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from qwick.cache.trie import Trie

sequences = st.lists(st.integers(0, 2), min_size=1, max_size=12)


def ids(tokens):
    return np.array(tokens, np.int32)


def agreement(left, right):
    return next((i for i, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), min(len(left), len(right)))


def nodes_below(node):
    for child in node.children.values():
        assert child.parent is node
        assert child.end == node.end + len(child.edge)
        assert len(child.edge) > 0
        yield child
        yield from nodes_below(child)


@given(st.lists(st.tuples(st.booleans(), sequences), max_size=25), sequences)
def test_it_knows_what_a_list_of_sequences_knows(changes, asked):
    trie, known = Trie(), {}
    for is_new, tokens in changes:
        if is_new or not known:
            known[tuple(tokens)] = node = trie.insert(ids(tokens))
            node.value = tuple(tokens)
        else:
            trie.remove(known.pop(sorted(known)[len(tokens) % len(known)]))
        nodes = list(nodes_below(trie.root))
        assert {node.value for node in nodes if node.value is not None} == set(known)
        assert all(node.value is not None or len(node.children) > 1 for node in nodes)
        for value, node in known.items():
            assert tuple(node.token_ids().tolist()) == value == node.value
    passed, num_common = trie.walk(ids(asked))
    assert num_common == max((agreement(asked, tokens) for tokens in known), default=0)
    begun = [tokens for tokens in known if tuple(asked[: len(tokens)]) == tokens]
    assert {node.value for node in passed if node.value is not None} == set(begun)
    assert [node.end for node in passed] == sorted({node.end for node in passed})
