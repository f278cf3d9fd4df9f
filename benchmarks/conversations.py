"""Conversations over one system prompt, all at once: llama-server and our engine, driven over HTTP by the same client.

    python benchmarks/conversations.py MODEL.gguf [--peer PATH/llama-server] [--conversations 8] [--turns 4]

Each conversation asks its next question when its last answer has come, whole. Prompts are token ids, and answers are
fed back as the ids that came: each side sees prompts of the same lengths, its own answers in them. Every answer has
--answer tokens, greedy; thinking is off.
--history verbatim: a prompt is the last one, its answer and the new question, which suits the peer best: its slot has
read all but the question. template: earlier answers stand without their empty think block, as the chat template has it.

The read stream beside the figures says whether the machine was the same for both. Written to --out: NAME.json, NAME.md.
"""

import argparse
import asyncio
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.http_stream import post_events  # noqa: E402
from benchmarks.peers.table import machine_slug  # noqa: E402
from benchmarks.published import publish  # noqa: E402
from benchmarks.sides import Ours, Peer, Side  # noqa: E402

from qwick.model.source import open_source  # noqa: E402
from qwick.ops.native import read_stream  # noqa: E402
from qwick.store import find_model  # noqa: E402
from qwick.text.tokenizer import Tokenizer  # noqa: E402

WORDS = """when the river rises over old stone bridges people carry lamps along narrow streets and speak of winter
harvest boats markets letters teachers maps gardens iron copper weather numbers tables engines questions answers rules
songs forests mountains rooms windows doors clocks papers bread salt water fire seven twelve forty never
always""".split()
STREAM_BYTES = 512 << 20


class Script:
    """What is said, as token ids: one system prompt, and questions of 30 to 40 tokens, each another."""

    def __init__(self, tokenizer: Tokenizer, options: argparse.Namespace) -> None:
        self._tokenizer = tokenizer
        self._random = random.Random(7)
        self._template = options.history == "template"
        self.answer_len: int = options.answer
        self._open = self._ids("<|im_start|>assistant\n")
        self._no_thoughts = self._ids("<think>\n\n</think>\n\n")
        self._close = self._ids("<|im_end|>\n")
        self.system = self._message("system", options.system)
        self.warm_up = self._text(64)
        self.questions = [
            [self._message("user", self._random.randint(37, 47)) for _ in range(options.turns)]
            for _ in range(options.conversations)
        ]

    def prompt(self, conversation: int, answers: Sequence[Sequence[int]]) -> tuple[list[int], list[int]]:
        """The next prompt, and where a later one may part from it: what our front finds in a chat by itself."""
        ids = list(self.system)
        for question, answer in zip(self.questions[conversation], answers, strict=False):
            thoughts = [] if self._template else self._no_thoughts
            ids += [*question, *self._open, *thoughts, *answer, *self._close]
        ids += [*self.questions[conversation][len(answers)], *self._open]
        shared = len(ids) if self._template else len(ids) + len(self._no_thoughts)
        return ids + self._no_thoughts, [len(self.system), shared]

    def _message(self, role: str, num_tokens: int) -> list[int]:
        """Of so many tokens, all told."""
        head = self._ids(f"<|im_start|>{role}\n")
        return [*head, *self._text(num_tokens - len(head) - len(self._close)), *self._close]

    def _text(self, num_tokens: int) -> list[int]:
        words = " ".join(self._random.choice(WORDS) for _ in range(num_tokens))
        return self._tokenizer.encode(words, allow_special=False)[:num_tokens]

    def _ids(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, allow_special=True)


@dataclass(slots=True)
class Reply:
    """One answer. Seconds since the question; tokens of the prompt; `miss` is what ours says."""

    conversation: int
    turn: int
    prompt: int
    cached: int = 0
    first: float = 0.0
    whole: float = 0.0
    miss: str = ""
    preemptions: int = 0
    ids: list[int] = field(default_factory=list[int])


@dataclass(slots=True)
class Outcome:
    """One side's run. `streams`: bytes per second of a read stream before and after."""

    name: str
    command: str
    seconds: float
    replies: list[Reply]
    streams: tuple[float, float]

    @property
    def firsts(self) -> np.ndarray:
        return np.array([reply.first for reply in self.replies])

    @property
    def num_read(self) -> int:
        return sum(reply.prompt - reply.cached for reply in self.replies)

    def rereads(self) -> int:
        """Turns after the first in which less was remembered than the last turn's prompt but for its think block."""
        known = {(reply.conversation, reply.turn): reply.prompt for reply in self.replies}
        return sum(
            reply.cached < known[reply.conversation, reply.turn - 1] - 8 for reply in self.replies if reply.turn > 0
        )


async def converse(side: Side, script: Script, conversation: int, replies: list[Reply]) -> None:
    answers: list[list[int]] = []
    for turn in range(len(script.questions[conversation])):
        prompt, boundaries = script.prompt(conversation, answers)
        body = side.body(prompt, script.answer_len, conversation, boundaries)
        reply = await ask(side, body, Reply(conversation, turn, len(prompt)))
        if len(reply.ids) != script.answer_len:
            sys.exit(f"{side.name}: an answer of {len(reply.ids)} tokens, not {script.answer_len}")
        replies.append(reply)
        answers.append(reply.ids)


async def ask(side: Side, body: dict[str, Any], reply: Reply) -> Reply:
    begin = perf_counter()
    async for event in post_events(side.port, "/completion", body):
        if event.get("tokens") and not reply.ids:
            reply.first = perf_counter() - begin
        reply.ids += event.get("tokens", [])
        if event.get("stop"):
            timings = event["timings"]
            reply.cached, reply.miss = timings["cache_n"], timings.get("miss", "")
            reply.preemptions = timings.get("preemptions", 0)
    reply.whole = perf_counter() - begin
    return reply


async def run(side: Side, script: Script, threads: int) -> Outcome:
    before = read_stream(STREAM_BYTES, threads, 0.2)
    async with side:
        await ask(side, side.body(script.warm_up, 8, 0, []), Reply(-1, 0, 64))
        replies: list[Reply] = []
        begin = perf_counter()
        async with asyncio.TaskGroup() as tasks:
            for conversation in range(len(script.questions)):
                tasks.create_task(converse(side, script, conversation, replies))
        seconds = perf_counter() - begin
    return Outcome(side.name, side.shown, seconds, replies, (before, read_stream(STREAM_BYTES, threads, 0.2)))


def table(outcomes: Sequence[Outcome], title: str) -> Iterator[str]:
    yield title
    yield ""
    yield (
        "| | total | first token p50 | p95 | tokens read | remembered | turns that forgot their history | read stream |"
    )
    yield "|---|---|---|---|---|---|---|---|"
    for outcome in outcomes:
        cached = sum(reply.cached for reply in outcome.replies)
        yield (
            f"| {outcome.name} | {outcome.seconds:.1f} s | {np.percentile(outcome.firsts, 50):.2f} s "
            f"| {np.percentile(outcome.firsts, 95):.2f} s | {outcome.num_read:,} | {cached:,} | {outcome.rereads()} "
            f"| {outcome.streams[0] / 1e9:.1f}, {outcome.streams[1] / 1e9:.1f} GB/s |"
        )
    if len(outcomes) == 2:
        peer, ours = outcomes
        first = [np.percentile(ours.firsts, q) / np.percentile(peer.firsts, q) for q in (50, 95)]
        yield (
            f"| ours ÷ peer | **{ours.seconds / peer.seconds:.2f}×** (asked: 0.35×) | {first[0]:.2f}× "
            f"| **{first[1]:.2f}×** (asked: 0.25×) | {ours.num_read / peer.num_read:.2f}× | | | |"
        )


def told(outcome: Outcome) -> dict[str, Any]:
    """All but the answers' ids."""
    found = asdict(outcome)
    for reply in found["replies"]:
        del reply["ids"]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--peer", type=Path, metavar="LLAMA-SERVER", help="its program; without it ours runs alone")
    parser.add_argument("--conversations", type=int, default=8)
    parser.add_argument("--turns", type=int, default=4)
    parser.add_argument("--slots", type=int, default=8)
    parser.add_argument("--system", type=int, default=1500, help="tokens of the common system prompt")
    parser.add_argument("--answer", type=int, default=64, help="tokens of each answer")
    parser.add_argument("--history", choices=("verbatim", "template"), default="verbatim")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--ctx", type=int, default=2560, help="of each slot")
    parser.add_argument("--cache-memory", type=int, default=2048, help="of ours, MiB; the peer has its default, 8192")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "engine" / machine_slug())
    parser.add_argument("--name", default="conversations", help="of the files in --out")
    options = parser.parse_args()
    model = find_model(options.model)
    with open_source(model) as source:
        tokenizer = Tokenizer.open(model, source.metadata)
        script = Script(tokenizer, options)
        vocab_size = source.config.vocab_size
    sides: list[Side] = [] if options.peer is None else [Peer(options, tokenizer, vocab_size)]
    title = (
        f"{options.conversations} conversations × {options.turns} turns, {options.slots} slots, {options.threads} "
        f"threads, {model.stem}; system prompt {options.system:,}, answers {options.answer} tokens; "
        f"history {options.history}"
    )
    outcomes: list[Outcome] = []
    for side in [*sides, Ours(options)]:
        outcomes.append(asyncio.run(run(side, script, options.threads)))
        publish(options.out, options.name, list(table(outcomes, title)), {"outcomes": [told(o) for o in outcomes]})


if __name__ == "__main__":
    main()
