"""What was read before and may be read on from: KV pages and snapshots of the recurrent state, under one budget.

A recurrent state cannot be cut back, so a prompt can go on only where a *snapshot* was taken. A snapshot weighs much
(in 0.8B as much as 1,600 tokens of keys and values), and it lies in pages like these do: one pool, one budget, and any
mix of long contexts and many snapshots fits it. Pages of a common beginning are shared; the last page of a snapshot,
which is only partly its own, is copied by whoever goes on from there.

Only prompt rows are remembered. An answer's tokens were computed with the numerics of decoding, so what follows them is
read again as a prompt (at leisure: Engine.remember), and a prompt's logits are the same bits whatever was remembered.

What is forgotten first: GreedyDual (Cao & Irani 1997). A snapshot's credit is the work it saves for each page that
forgetting it sets free, plus the credit of the last one forgotten when it was last used. So it grows old, and the more
slowly the more it saves. Pure bookkeeping; the bytes live in the backend.
"""

from collections import Counter, OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from qwick.cache.pages import PagePool
from qwick.cache.spec import CacheSpec
from qwick.cache.trie import Node, Trie
from qwick.ops.contract import Int32

LEAST_GAP = 64  # tokens between two snapshots on one path, below which the second is worth nothing
MOST_GHOST_TOKENS = 1 << 18  # of forgotten snapshots, whose tokens say why a prompt has to be read again


class MissReason(StrEnum):
    """Why no more of a prompt was in memory."""

    NEW = "new"  # nothing that was read begins so
    DIVERGED = "diverged"  # what was read goes on differently
    FORGOTTEN = "forgotten"  # there was a snapshot; its memory went to something else
    UNSAVED = "unsaved"  # it was read, but no snapshot was taken there


@dataclass(frozen=True, slots=True)
class Miss:
    """`at`: the token, counted from 0, from which on the reason holds."""

    reason: MissReason
    at: int

    def __str__(self) -> str:
        match self.reason:
            case MissReason.NEW:
                return "nothing that was read before begins like this"
            case MissReason.DIVERGED:
                return f"diverged at token {self.at:,}"
            case MissReason.FORGOTTEN:
                return f"the memory of the first {self.at:,} tokens went to other prompts (--cache-memory makes room)"
            case MissReason.UNSAVED:
                return f"read before up to token {self.at:,}, but no state was kept there"


@dataclass(slots=True, eq=False)
class Snapshot:
    """The state after `length` tokens. Without `state` it is a ghost: forgotten, but for its tokens.

    pages  keys and values of those tokens; the last page's rest belongs to nobody
    state  pages that hold the recurrent state
    used   the memory's clock when somebody last went on from here
    """

    length: int
    pages: list[int]
    state: list[int]
    used: float


@dataclass(frozen=True, slots=True)
class Match:
    """What is remembered of a prompt.

    length    tokens that need not be read; 0 without a snapshot
    num_common  tokens that agree with something remembered: from there on nothing can be
    miss      why `length` is not larger; None where the prompt only goes on after all that is remembered
    """

    length: int
    num_common: int
    miss: Miss | None
    node: Node[Snapshot] | None = None

    @property
    def snapshot(self) -> Snapshot | None:
        return None if self.node is None else self.node.value


@dataclass(slots=True)
class Opened:
    """Memory of a new sequence: its pages, and what to copy before anything else happens, in this order.

    state    pages to load the recurrent state from; () starts from nothing
    partial  a page whose content belongs into pages[partial_index]; None: nothing to copy

    Both may be among `pages` already: the snapshot itself may have made room.
    """

    pages: list[int]
    state: tuple[int, ...] = ()
    partial: int | None = None
    partial_index: int = 0


class PrefixMemory:
    """`num_pages` pages, of which sequences under way take what they need and snapshots what is left.

    `remembers` False: no snapshots, and every prompt is read whole.
    """

    def __init__(self, spec: CacheSpec, num_pages: int, *, remembers: bool = True) -> None:
        self._spec = spec
        self._pool = PagePool(num_pages)
        self.remembers = remembers
        self._trie: Trie[Snapshot] = Trie()
        self._alive: dict[Node[Snapshot], None] = {}  # oldest first: of equal credit, the older one is forgotten
        self._ghosts: OrderedDict[Node[Snapshot], None] = OrderedDict()
        self._in_use: Counter[int] = Counter()  # pages of sequences under way
        self._clock = 0.0
        self.num_taken, self.num_forgotten = 0, 0  # snapshots, ever

    @property
    def num_pages(self) -> int:
        return self._pool.num_pages

    @property
    def num_free(self) -> int:
        """Pages that nobody holds."""
        return self._pool.num_free

    @property
    def num_in_use(self) -> int:
        """Pages that sequences under way hold, shared ones once."""
        return len(self._in_use)

    @property
    def num_snapshots(self) -> int:
        return len(self._alive)

    def find(self, token_ids: Int32) -> Match:
        """The longest remembered beginning of a prompt, short of its last token: that is read for its logits."""
        passed, num_common = self._trie.walk(token_ids)
        usable = [node for node in passed if node in self._alive and node.end < len(token_ids)]
        node = usable[-1] if usable else None
        length = 0 if node is None else node.end
        return Match(length, num_common, self._miss(passed, num_common, length, len(token_ids)), node)

    def instead(self, token_ids: Int32, count: int) -> Int32:
        """Up to `count` ids that something remembered has where `token_ids` part from all of it."""
        passed, num_common = self._trie.walk(token_ids)
        node, at = passed[-1], num_common
        if at == node.end and node.children:
            node = next(iter(node.children.values()))
        elif at > node.end:
            node = node.children[int(token_ids[node.end])]
        return node.token_ids()[at : at + count]

    def open(self, match: Match, num_tokens: int) -> Opened | None:
        """Pages for the first `num_tokens` tokens of a sequence, from `match` on. None while those under way hold
        too much; nothing has changed then."""
        snapshot, page_len = match.snapshot, self._spec.shape.page_len
        num_whole = match.length // page_len
        shared = snapshot.pages[:num_whole] if snapshot else []
        num_new = self._spec.pages_for(num_tokens) - num_whole
        if num_new > self.num_pages - len(self._in_use.keys() | set(shared)):
            return None
        self._pool.share(shared)
        self._in_use.update(shared)
        if snapshot is None:
            return Opened(self._take(num_new))
        snapshot.used = self._clock
        # Taken down before the snapshot may make room itself: then who goes on from it needs no more than its length.
        state, partial = tuple(snapshot.state), snapshot.pages[num_whole:]
        opened = Opened(shared + self._take(num_new), state)
        if partial and partial[0] != opened.pages[num_whole]:
            opened.partial, opened.partial_index = partial[0], num_whole
        return opened

    def grow(self, pages: list[int], num_tokens: int) -> bool:
        """Make a sequence's pages enough for `num_tokens` tokens. False while those under way hold too much."""
        num_new = self._spec.pages_for(num_tokens) - len(pages)
        if num_new > self.num_pages - len(self._in_use):
            return False
        pages += self._take(num_new)
        return True

    def release(self, pages: list[int]) -> None:
        """A sequence ended, or made way for others."""
        for page in pages:
            self._in_use[page] -= 1
            if self._in_use[page] == 0:
                del self._in_use[page]
        self._pool.give_back(pages)
        pages.clear()

    def wants(self, token_ids: Int32, length: int, least_gap: int = LEAST_GAP) -> bool:
        """Whether a snapshot after `length` of these tokens would save the reading of `least_gap` or more."""
        if not self.remembers or self._spec.state_pages > self.num_pages - len(self._in_use):
            return False
        passed, _ = self._trie.walk(token_ids[:length])
        nearest = max((node.end for node in passed if node in self._alive), default=0)
        return length - nearest >= least_gap

    def remember(self, token_ids: Int32, pages: Sequence[int]) -> list[int] | None:
        """A place for the state after `token_ids`, whose keys and values lie in `pages`, of a sequence under way.

        The caller saves the state there before anything else happens. None when it is there already or has no room.
        """
        if self._spec.state_pages > self.num_pages - len(self._in_use):
            return None
        node = self._trie.insert(token_ids)
        if node in self._alive:
            return None
        self._ghosts.pop(node, None)
        held = list(pages[: self._spec.pages_for(len(token_ids))])
        node.value = Snapshot(len(token_ids), held, [], self._clock)  # not yet alive: it is not forgotten for itself
        node.value.state = self._take(self._spec.state_pages, in_use=False)
        self._pool.share(held)
        self._alive[node] = None
        self.num_taken += 1
        return node.value.state

    def check(self, under_way: Iterable[Sequence[int]]) -> None:
        """Invariants, between two steps: each page is free or held by those who say so, and the trie has no waste."""
        sequences = [page for pages in under_way for page in pages]
        assert Counter(sequences) == self._in_use, "pages under way are miscounted"
        snapshots = [node.value for node in self._alive if node.value is not None]
        assert len(snapshots) == len(self._alive), "a snapshot is gone"
        self._pool.check([*sequences, *(page for s in snapshots for page in (*s.pages, *s.state))])
        for node in self._alive:
            assert node.value is not None
            assert node.end == node.value.length, "a snapshot in the wrong place"
            assert len(node.value.pages) == self._spec.pages_for(node.end), "a snapshot without its keys and values"
            assert len(node.value.state) == self._spec.state_pages, "a snapshot without its state"
        ghosts = sum(len(node.edge) for node in self._ghosts)
        assert ghosts <= MOST_GHOST_TOKENS or len(self._ghosts) <= 1, "ghosts grow without end"

    def _miss(self, passed: list[Node[Snapshot]], num_common: int, length: int, num_tokens: int) -> Miss | None:
        if num_common == 0:
            return Miss(MissReason.NEW, 0) if length == 0 else None
        ghosts = [node.end for node in passed if node in self._ghosts and length < node.end < num_tokens]
        if ghosts:
            return Miss(MissReason.FORGOTTEN, ghosts[-1])
        last = passed[-1]
        if num_common < num_tokens and (num_common > last.end or last.children):
            return Miss(MissReason.DIVERGED, num_common)
        return None if num_common == length else Miss(MissReason.UNSAVED, num_common)

    def _take(self, count: int, *, in_use: bool = True) -> list[int]:
        while count > self._pool.num_free:
            self._forget(min(self._alive, key=self._credit))
        pages = self._pool.take(count)
        if in_use:
            self._in_use.update(pages)
        return pages

    def _credit(self, node: Node[Snapshot]) -> float:
        snapshot = node.value
        assert snapshot is not None
        above = node.parent
        while above is not None and above not in self._alive:
            above = above.parent
        saved = node.end - (0 if above is None else above.end)
        return snapshot.used + saved / (len(snapshot.state) + self._num_own(snapshot.pages))

    def _num_own(self, pages: list[int]) -> int:
        """Pages that nobody shares. Who shares a page shares all before it, so they are the last ones."""
        low, high = 0, len(pages)
        while low < high:
            middle = (low + high) // 2
            low, high = (middle + 1, high) if self._pool.is_shared(pages[middle]) else (low, middle)
        return len(pages) - low

    def _forget(self, node: Node[Snapshot]) -> None:
        snapshot = node.value
        assert snapshot is not None
        self._clock = max(self._clock, self._credit(node))
        del self._alive[node]
        self._pool.give_back(snapshot.pages)
        self._pool.give_back(snapshot.state)
        snapshot.pages, snapshot.state = [], []
        self.num_forgotten += 1
        self._ghosts[node] = None
        while sum(len(ghost.edge) for ghost in self._ghosts) > MOST_GHOST_TOKENS and len(self._ghosts) > 1:
            oldest, _ = self._ghosts.popitem(last=False)
            self._trie.remove(oldest)
