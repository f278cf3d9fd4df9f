"""Mistakes by name: each is a function that makes one, with pytest's monkeypatch."""

from collections.abc import Callable

import pytest

Patch = pytest.MonkeyPatch
Mutation = Callable[[Patch], None]


class Mutations(dict[str, Mutation]):
    """Used as a decorator: files a mutation under its function's name."""

    def __call__(self, apply: Mutation) -> Mutation:
        self[apply.__name__] = apply
        return apply
