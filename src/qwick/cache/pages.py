"""Who holds which KV page. Pure bookkeeping; the bytes live in the backend."""

from collections.abc import Iterable

from qwick.errors import CapacityError


class PagePool:
    """`num_pages` equal pages, each free or held by one or more owners: whole pages of a common prefix are shared."""

    def __init__(self, num_pages: int) -> None:
        self._free = list(range(num_pages - 1, -1, -1))  # popped from the end: low pages first
        self._owners = [0] * num_pages
        self.num_pages = num_pages

    @property
    def num_free(self) -> int:
        return len(self._free)

    def take(self, count: int) -> list[int]:
        """`count` free pages, each with one owner. Raises CapacityError, taking none, when there are fewer."""
        if count > len(self._free):
            raise CapacityError(f"{count} KV pages are needed and {len(self._free)} of {self.num_pages} are free")
        pages = [self._free.pop() for _ in range(count)]
        for page in pages:
            self._owners[page] = 1
        return pages

    def share(self, pages: Iterable[int]) -> None:
        """One more owner for each of these pages, which somebody holds."""
        for page in pages:
            assert self._owners[page] > 0, "a free page cannot be shared"
            self._owners[page] += 1

    def give_back(self, pages: Iterable[int]) -> None:
        """One owner less for each; those without are free."""
        for page in pages:
            assert self._owners[page] > 0, "a free page was given back"
            self._owners[page] -= 1
            if self._owners[page] == 0:
                self._free.append(page)

    def is_shared(self, page: int) -> bool:
        return self._owners[page] > 1

    def check(self, held: Iterable[int]) -> None:
        """Invariant: a page has as many owners as it occurs in `held`, and is free when there are none."""
        owners = [0] * self.num_pages
        for page in held:
            owners[page] += 1
        assert owners == self._owners, "a page has lost or won an owner"
        free = set(self._free)
        assert len(free) == len(self._free), "a page is free twice"
        assert free == {page for page, count in enumerate(owners) if count == 0}, "a page is lost, or free and held"
