"""Does anything leak? 2,000 random requests to a small model: through AsyncLLM, then through the engine.

    python benchmarks/endurance.py [MODEL] [--requests 2000]

Prompts begin like earlier ones, repeat them, are empty, fill the context or are longer than it; a quarter is cancelled
at some point, half of those before their first token. The cache has fewer pages than all of them want, so the engine
makes some of them wait and some start again. After every 50 requests all pages and slots are counted (Engine.check).
Resident memory after a quarter of the requests and after all of them: asked is the same within 3 %.

Written to --out: endurance.json, endurance.md.
"""

import argparse
import asyncio
import random
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.peers.table import machine_slug  # noqa: E402
from benchmarks.published import publish  # noqa: E402

from qwick.async_llm import AsyncLLM  # noqa: E402
from qwick.engine.config import EngineConfig  # noqa: E402
from qwick.engine.engine import Engine  # noqa: E402
from qwick.engine.request import Request  # noqa: E402
from qwick.errors import CapacityError, UsageError  # noqa: E402
from qwick.model.model import open_model  # noqa: E402
from qwick.model.source import open_source  # noqa: E402
from qwick.opening import EngineOptions  # noqa: E402
from qwick.sampling.params import SamplingParams  # noqa: E402
from qwick.store import POCKET, find_model  # noqa: E402

CONTEXT, SLOTS, TOGETHER = 512, 16, 32
LENGTHS = ((0, 0), (1, 3), (4, 60), (4, 60), (4, 60), (60, 300), (60, 300), (CONTEXT - 40, CONTEXT - 1), (CONTEXT, 900))
MEMORY = 8 << 20  # bytes of what is remembered
Found = dict[str, Any]


class Asker:
    """Random requests that have to do with each other."""

    def __init__(self, vocab_size: int) -> None:
        self.random = random.Random(11)
        self._vocab_size = vocab_size
        self._asked: list[list[int]] = [self._ids(200)]

    def prompt(self) -> list[int]:
        """Half of them are new, the others a recent one again or something that begins like it."""
        choice = self.random.random()
        earlier = self.random.choice(self._asked)
        if choice < 0.15:
            ids = list(earlier)
        else:
            kept = self.random.randint(0, len(earlier)) if choice < 0.5 else 0
            least, most = self.random.choice(LENGTHS)
            length = self.random.randint(least, most)
            ids = [*earlier[:kept], *self._ids(length)][:length]
        if 0 < len(ids) < CONTEXT:
            self._asked = [*self._asked[-50:], ids]
        return ids

    def options(self) -> dict[str, Any]:
        """Of sampling."""
        greedy = self.random.random() < 0.5
        return {
            "temperature": 0 if greedy else 0.8,
            "max_tokens": self.random.choice((1, 4, 16, 40, None)),
            "seed": self.random.randrange(1 << 30),
            "presence_penalty": self.random.choice((0.0, 0.0, 0.5)),
            "top_k": self.random.choice((1, 20, 20, 0)),
        }

    def _ids(self, length: int) -> list[int]:
        return [self.random.randrange(self._vocab_size) for _ in range(length)]


def through_engine(model_name: str, num_requests: int) -> Found:
    """TOGETHER requests at a time, those that wait included."""
    with open_source(find_model(model_name)) as source:
        model: Any = open_model(source, threads=2, threads_batch=2)
    whole = Engine(model, EngineConfig(CONTEXT, 1)).spec
    num_pages = SLOTS // 4 * whole.pages_for(CONTEXT) + MEMORY // max(whole.page_bytes, 1)
    engine = Engine(model, EngineConfig(CONTEXT, SLOTS, 256, cache_memory=MEMORY, num_pages=num_pages))
    asker, ends, memory = Asker(model.config.vocab_size), Counter[str](), [resident()]
    begin, open_ids, doomed = perf_counter(), set[int](), dict[int, int]()
    for number in range(1, num_requests + 1):
        while len(open_ids) >= TOGETHER:
            _step(engine, open_ids, doomed, ends)
        ids = asker.prompt()
        places = tuple(sorted({asker.random.randint(1, len(ids)) for _ in range(2)})) if ids else ()
        try:
            sequence_id = engine.add(Request(tuple(ids), SamplingParams(**asker.options()), places))
        except (UsageError, CapacityError) as error:
            ends[f"refused ({type(error).__name__})"] += 1
        else:
            open_ids.add(sequence_id)
            if asker.random.random() < 0.25:
                doomed[sequence_id] = asker.random.choice((0, asker.random.randint(1, 60)))
        if ids and len(ids) < CONTEXT and asker.random.random() < 0.2:
            engine.remember(Request(tuple(ids), SamplingParams()))
        if number % 50 == 0:
            engine.check()
        if number % (num_requests // 8) == 0:
            memory.append(resident())
    while open_ids:
        _step(engine, open_ids, doomed, ends)
    while engine.idle_step():
        engine.check()
    engine.check()
    levels = engine.levels
    assert levels.waiting == levels.running == levels.pages_in_use == 0, "something is still held"
    return {
        "seconds": perf_counter() - begin,
        "ends": ends,
        "resident": memory,
        "levels": asdict(levels),
        "tokens_read": engine.instruments.read_tokens,
        "tokens_remembered": engine.instruments.cached_tokens,
        "tokens_read_again": engine.instruments.reread_tokens,
    }


def _step(engine: Engine, open_ids: set[int], doomed: dict[int, int], ends: Counter[str]) -> None:
    """And cancel whose time has come."""
    for event in engine.step():
        if event.finish:
            open_ids.discard(event.sequence_id)
            doomed.pop(event.sequence_id, None)
            ends[event.finish] += 1
    for sequence_id in [each for each, steps in doomed.items() if steps <= 0]:
        engine.cancel(sequence_id)
        open_ids.discard(sequence_id)
        del doomed[sequence_id]
        ends["cancelled"] += 1
    for sequence_id in doomed:
        doomed[sequence_id] -= 1


async def through_async(model_name: str, num_requests: int) -> Found:
    """The same over the engine's own process; both processes' memory."""
    options = EngineOptions(threads=2, threads_batch=2, context_len=CONTEXT, max_sequences=SLOTS, cache_memory=MEMORY)
    ends, asked = Counter[str](), 0
    async with AsyncLLM(model_name, options) as llm:
        asker = Asker(llm.config.vocab_size)
        parent, child = [resident()], [resident(llm.process.pid)]
        begin = perf_counter()

        async def ask_some() -> None:
            nonlocal asked
            while asked < num_requests:
                asked += 1
                ends[await _ask(llm, asker)] += 1
                if asked % (num_requests // 8) == 0:
                    parent.append(resident())
                    child.append(resident(llm.process.pid))

        await asyncio.gather(*(ask_some() for _ in range(TOGETHER)))
        seconds = perf_counter() - begin
        assert llm.process.num_open == 0, "a request is still open"
        starts = llm.process.num_starts
    return {"seconds": seconds, "ends": ends, "resident": child, "parent_resident": parent, "starts": starts}


async def _ask(llm: AsyncLLM, asker: Asker) -> str:
    """How it ended. Cancelled: the task that waits, or the stream."""
    stream = llm.generate(asker.prompt(), **asker.options())
    whole = asyncio.create_task(stream.completion())
    try:
        if asker.random.random() < 0.25:
            with suppress(TimeoutError):
                await asyncio.wait_for(whole, asker.random.choice((0.0, 0.02, 0.2)))
            if not whole.done() or whole.cancelled():
                return "cancelled"
        return (await whole).finish_reason
    except (UsageError, CapacityError) as error:
        return f"refused ({type(error).__name__})"


def resident(pid: int | None = None) -> int:
    """Bytes of a process; of this one by default. Linux."""
    for line in Path(f"/proc/{pid or 'self'}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) << 10
    raise RuntimeError("this system does not say how much memory a process has")


def lines_of(found: dict[str, Found], num_requests: int) -> Iterator[str]:
    yield f"| {num_requests:,} requests | seconds | ended | resident after a quarter | after all | more |"
    yield "|---|---|---|---|---|---|"
    for name, part in found.items():
        ends = ", ".join(f"{count:,} {end}" for end, count in sorted(part["ends"].items()))
        for of, key in (("", "resident"), (", the asker", "parent_resident")):
            if key in part:
                yield f"| {name}{of} | {part['seconds']:.0f} | {ends} | {_growth(part[key])} |"


def _growth(memory: Sequence[int]) -> str:
    """`memory`: at the start and after every eighth."""
    early, late = memory[2], memory[-1]
    return f"{early / 2**20:.1f} MiB | {late / 2**20:.1f} MiB | **{late / early - 1:+.1%}** (asked: within 3%)"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default=POCKET)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "engine" / machine_slug())
    options = parser.parse_args()
    found = {"AsyncLLM": asyncio.run(through_async(options.model, options.requests))}  # first: a young process asks
    found["Engine"] = through_engine(options.model, options.requests)
    publish(options.out, "endurance", list(lines_of(found, options.requests)), found)


if __name__ == "__main__":
    main()
