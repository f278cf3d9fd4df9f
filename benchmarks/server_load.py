"""Many streams over real HTTP, for minutes: errors, the server's CPU per token, memory over time, waiting times.

    python benchmarks/server_load.py [MODEL] [--streams 64] [--seconds 180] [--tokens 150] [--url http://HOST:PORT]

Each stream asks, reads its answer to the end, and asks again. An answer is whole when it ends with a finish reason, its
counts and [DONE]; anything else is an error. Processor time is the server process's own (/proc), over all tokens that
its answers counted; the engine is a process of its own. Resident memory every second, after a warm-up of one answer per
stream; its slope by least squares over the second half: until then the engine touches pages that its plan gave it at
the start, and the server's tokenizer remembers words of new texts (10,000 of them). Few --questions, often repeated,
show what else would grow. Times between tokens are between reads in which something came.

Without --url it starts `qwick serve MODEL` (further flags behind --) and forbids what ends an answer, so that each has
--tokens. With it the server's processes are not seen, only what comes from it. Published beside the others: --out.
"""

import argparse
import json
import random
import re
import sys
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from statistics import quantiles
from time import monotonic, process_time, sleep
from typing import Any
from urllib.parse import urlsplit
from urllib.request import urlopen

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.load_client import Load  # noqa: E402
from benchmarks.peers.table import machine_slug  # noqa: E402
from benchmarks.published import publish  # noqa: E402
from benchmarks.serving import Processes, serving, slope  # noqa: E402

from qwick.store import POCKET, find_model  # noqa: E402
from qwick.text.tokenizer import Tokenizer  # noqa: E402

ASKED_MICROSECONDS = 150
Found = dict[str, Any]


def bodies(model: str, options: argparse.Namespace) -> Iterator[bytes]:
    """Questions without end; each is a chat, streamed. The same question has the same answer."""
    chance = random.Random(5)
    asked = [(chance.randrange(1, 100), chance.randrange(1, 100)) for _ in range(options.questions)]
    more: Found = {}
    if options.url is None:
        stops = Tokenizer.open(find_model(options.model)).stop_ids
        more["logit_bias"] = {str(token_id): -100 for token_id in stops}
    for number in cycle(range(len(asked))):
        left, right = asked[number]
        messages = [{"role": "user", "content": f"What is {left} + {right}?"}]
        body = {"model": model, "messages": messages, "max_tokens": options.tokens, "seed": number}
        yield json.dumps(body | {"stream": True, "stream_options": {"include_usage": True}} | more).encode()


def measure(url: str, processes: Processes | None, options: argparse.Namespace) -> Found:
    """One answer per stream to warm up; then what is counted."""
    host = urlsplit(url)
    with urlopen(f"{url}/v1/models") as answer:
        model = json.load(answer)["data"][0]["id"]
    asked = bodies(model, options)
    Load((host.hostname or "", host.port or 80), asked, options.streams).run(0)
    memory: dict[str, list[int]] = {}
    cpu = processes.cpu_seconds() if processes else {}

    def sample() -> None:
        for name, size in processes.resident().items() if processes else ():
            memory.setdefault(name, []).append(size)

    load = Load((host.hostname or "", host.port or 80), asked, options.streams, every_second=sample)
    begin, own = monotonic(), process_time()
    load.run(options.seconds)
    seconds = monotonic() - begin
    spent = {name: total - cpu[name] for name, total in processes.cpu_seconds().items()} if processes else {}
    return {
        "streams": options.streams,
        "seconds": seconds,
        "answers": load.num_answers,
        "errors": load.errors,
        "tokens": load.num_tokens,
        "tokens_per_second": load.num_tokens / seconds,
        "cpu_microseconds_per_token": {name: total / load.num_tokens * 1e6 for name, total in spent.items()},
        "client_share": (process_time() - own) / seconds,
        "first_seconds": _percentiles(load.first_seconds),
        "gap_seconds": _percentiles(load.gap_seconds),
        "resident": {name: [sizes[0], sizes[len(sizes) // 2], sizes[-1]] for name, sizes in memory.items()},
        "slope_per_minute": {name: slope(sizes[len(sizes) // 2 :]) * 60 for name, sizes in memory.items()},
        "left": left(url),
    }


def left(url: str) -> Found:
    """What the server still holds, a second later: the engine tells its counts so often."""
    sleep(2)
    with urlopen(f"{url}/metrics") as answer:
        text = answer.read().decode()
    found = re.findall(r"^qwick_requests_(admitted|waiting|running) (\S+)$", text, re.MULTILINE)
    return {name: float(value) for name, value in found}


def _percentiles(seconds: list[float]) -> Found:
    cuts = quantiles(seconds, n=100) if len(seconds) > 1 else [0.0] * 99
    return {"p50": cuts[49], "p99": cuts[98], "longest": max(seconds, default=0.0)}


def lines_of(found: Found) -> Iterator[str]:
    yield f"| {found['streams']} streams, {found['seconds']:.0f} s | |"
    yield "|---|---|"
    yield f"| answers, errors | {found['answers']:,}, **{len(found['errors'])}** |"
    yield f"| tokens, per second | {found['tokens']:,}, {found['tokens_per_second']:,.0f} |"
    for name, value in found["cpu_microseconds_per_token"].items():
        asked = f" (asked: at most {ASKED_MICROSECONDS})" if name == "server" else ""
        yield f"| CPU of the {name} per token | **{value:.1f} µs**{asked} |"
    for name, key in (("first token", "first_seconds"), ("between tokens", "gap_seconds")):
        times = ", ".join(f"{of} {seconds * 1e3:,.0f} ms" for of, seconds in found[key].items())
        yield f"| {name} | {times} |"
    for name, sizes in found["resident"].items():
        grows = f"{found['slope_per_minute'][name] / 2**20:+.2f} MiB a minute"
        shown = ", ".join(f"{size / 2**20:.1f}" for size in sizes)
        yield f"| memory of the {name}: start, half, end | {shown} MiB; {grows} in the second half |"
    yield f"| still held afterwards | {', '.join(f'{name} {value:.0f}' for name, value in found['left'].items())} |"
    yield f"| the client's own share of a core | {found['client_share']:.0%} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default=POCKET)
    parser.add_argument("--streams", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=180)
    parser.add_argument("--tokens", type=int, default=150, help="of an answer")
    parser.add_argument("--questions", type=int, default=20_000, help="different ones")
    parser.add_argument("--url", help="of a server that runs already")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "engine" / machine_slug())
    mark = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    options, flags = parser.parse_args(sys.argv[1:mark]), sys.argv[mark + 1 :]
    if options.url is not None:
        found = measure(options.url.rstrip("/").removesuffix("/v1"), None, options)
    else:
        with serving(options.model, "--max-concurrent", str(options.streams), *flags) as (url, processes):
            found = measure(url, processes, options)
    publish(options.out, "server_load", list(lines_of(found)), found)
    if found["errors"]:
        sys.exit(f"{len(found['errors'])} errors, the first: {found['errors'][0]}")


if __name__ == "__main__":
    main()
