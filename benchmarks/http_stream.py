"""As much of HTTP as the benchmarks need, over asyncio: post JSON, get the server's events as they come."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

HOST = "127.0.0.1"


class HttpError(Exception):
    """The server refused, or said something else than HTTP."""


async def post_events(port: int, path: str, body: object) -> AsyncIterator[dict[str, Any]]:
    """The JSON of each `data:` line of a stream of server-sent events."""
    data = json.dumps(body).encode()
    reader, writer = await asyncio.open_connection(HOST, port)
    head = f"POST {path} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\nContent-Type: application/json\r\n"
    writer.write(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
    try:
        status, headers = await _read_head(reader)
        if status != 200:
            raise HttpError(f"{path}: {status}, {(await reader.read(2000)).decode(errors='replace')}")
        rest = b""
        async for part in _parts(reader, chunked=headers.get("transfer-encoding") == "chunked"):
            *lines, rest = (rest + part).split(b"\n")
            for line in lines:
                if line.startswith(b"data: {"):
                    yield json.loads(line.removeprefix(b"data: "))
    finally:
        writer.close()


async def is_healthy(port: int) -> bool:
    """Whether GET /health is answered with 200."""
    try:
        reader, writer = await asyncio.open_connection(HOST, port)
    except OSError:
        return False
    try:
        writer.write(f"GET /health HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n".encode())
        return (await _read_head(reader))[0] == 200
    except (OSError, HttpError):
        return False
    finally:
        writer.close()


async def _read_head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    try:
        lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        status = int(lines[0].split()[1])
    except (asyncio.IncompleteReadError, IndexError, ValueError):
        raise HttpError("no HTTP head came back") from None
    fields = (line.partition(":") for line in lines[1:] if line)
    return status, {name.lower(): value.strip().lower() for name, _, value in fields}


async def _parts(reader: asyncio.StreamReader, *, chunked: bool) -> AsyncIterator[bytes]:
    """The body as it comes: by chunks, or until the connection is closed."""
    while not chunked:
        part = await reader.read(1 << 16)
        if not part:
            return
        yield part
    while size := int(await reader.readline(), 16):
        yield await reader.readexactly(size)
        await reader.readline()
