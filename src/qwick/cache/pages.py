"""Who holds which KV page. Pure bookkeeping; the bytes live in the backend."""

from qwick.errors import CapacityError


class PagePool:
    """`num_pages` equal pages, each free or held by exactly one sequence."""

    def __init__(self, num_pages: int) -> None:
        self._free = list(range(num_pages - 1, -1, -1))  # popped from the end: low pages first
        self._held: set[int] = set()
        self.num_pages = num_pages

    @property
    def num_free(self) -> int:
        return len(self._free)

    def take(self, count: int) -> list[int]:
        """`count` free pages. Raises CapacityError, taking none, when there are fewer."""
        if count > len(self._free):
            raise CapacityError(f"{count} KV pages are needed and {len(self._free)} of {self.num_pages} are free")
        pages = [self._free.pop() for _ in range(count)]
        self._held.update(pages)
        return pages

    def give_back(self, pages: list[int]) -> None:
        for page in pages:
            self._held.remove(page)
            self._free.append(page)

    def check(self) -> None:
        """Invariant: free and held are disjoint and together all pages."""
        free = set(self._free)
        assert len(free) == len(self._free), "a page is free twice"
        assert not free & self._held, "a page is free and held"
        assert free | self._held == set(range(self.num_pages)), "a page is lost"
