"""Our engine behind as much HTTP as benchmarks/conversations.py asks of it: llama-server's /completion with token ids.

python benchmarks/shim.py MODEL --port 8080 [--slots 8] [--ctx 2560] [--threads 2] [--cache-memory 2048]
"""

import argparse
import asyncio
import json
from dataclasses import replace
from typing import Any

from qwick.async_llm import AsyncLLM
from qwick.engine.request import Stats
from qwick.opening import EngineOptions

LARGEST_HEAD = 1 << 16


async def serve(llm: AsyncLLM, port: int) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
            length = head.partition("content-length:")[2].split("\r\n")[0]
            writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: text/event-stream\r\n\r\n")
            if length:
                await _complete(llm, json.loads(await reader.readexactly(int(length))), writer)
            await writer.drain()
        finally:
            writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", port, limit=LARGEST_HEAD) as server:
        await server.serve_forever()


async def _complete(llm: AsyncLLM, asked: dict[str, Any], writer: asyncio.StreamWriter) -> None:
    """As AsyncLLM.generate does, but ids come out, and no token ends the answer."""
    prompt, num_tokens = asked["prompt"], asked["n_predict"]
    request = llm.prompting.continuation(prompt, (), {"temperature": 0, "max_tokens": num_tokens}).request
    boundaries = tuple(asked.get("boundaries", request.boundaries))
    sampling = replace(request.sampling, stop_token_ids=frozenset())
    ticket = llm.process.submit(replace(request, sampling=sampling, boundaries=boundaries))
    is_over, stats = False, Stats(len(prompt))
    while not is_over:
        for event in await ticket.events():
            said: dict[str, Any] = {"tokens": [event.token_id], "stop": False}
            writer.write(b"data: " + json.dumps(said).encode() + b"\n\n")
            is_over, stats = event.finish is not None, event.stats
    timings = {
        "cache_n": stats.cached_tokens,
        "prompt_n": len(prompt) - stats.cached_tokens,
        "miss": "" if stats.miss is None else str(stats.miss),
        "preemptions": stats.preemptions,
    }
    writer.write(b"data: " + json.dumps({"tokens": [], "stop": True, "timings": timings}).encode() + b"\n\n")


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--slots", type=int, default=8)
    parser.add_argument("--ctx", type=int, default=2560)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cache-memory", type=int, default=2048, help="MiB")
    asked = parser.parse_args()
    options = EngineOptions(
        threads=asked.threads,
        threads_batch=asked.threads,
        context_len=asked.ctx,
        max_sequences=asked.slots,
        cache_memory=asked.cache_memory << 20,
    )
    async with AsyncLLM(asked.model, options) as llm:
        await serve(llm, asked.port)


if __name__ == "__main__":
    asyncio.run(main())
