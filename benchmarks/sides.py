"""The two servers of benchmarks/conversations.py: started, asked in the same words, ended."""

import argparse
import asyncio
import socket
import subprocess
import sys
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from benchmarks.http_stream import is_healthy

from qwick.text.tokenizer import Tokenizer

SHIM = Path(__file__).with_name("shim.py")
START_SECONDS = 60


class Side(ABC):
    """A server in a process of its own; `async with` starts and ends it. `shown`: its command without folders."""

    name: str

    def __init__(self, program: Sequence[str], arguments: Sequence[str], model: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self._command = [*program, *arguments, "--port", str(self.port)]
        self.shown = " ".join([Path(program[-1]).name, *arguments]).replace(model, Path(model).name)

    @abstractmethod
    def body(self, prompt: list[int], num_tokens: int, conversation: int, boundaries: list[int]) -> dict[str, Any]:
        """Of a request for `num_tokens` greedy tokens."""

    async def __aenter__(self) -> Self:
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed with the server
        self._process = subprocess.Popen(self._command, stdout=self._log, stderr=subprocess.STDOUT)
        for _ in range(START_SECONDS * 5):
            if await is_healthy(self.port):
                return self
            if self._process.poll() is not None:
                break
            await asyncio.sleep(0.2)
        self._log.seek(0)
        said = self._log.read()[-2000:]
        await self.__aexit__()
        sys.exit(f"{self.name} did not start: {said}")

    async def __aexit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._log.close()


class Ours(Side):
    """AsyncLLM, and so the engine in a third process, behind benchmarks/shim.py."""

    name = "qwick"

    def __init__(self, options: argparse.Namespace) -> None:
        arguments = [options.model, "--slots", options.slots, "--ctx", options.ctx, "--threads", options.threads]
        arguments += ["--cache-memory", options.cache_memory]
        super().__init__([sys.executable, str(SHIM)], [str(word) for word in arguments], options.model)

    def body(self, prompt: list[int], num_tokens: int, conversation: int, boundaries: list[int]) -> dict[str, Any]:
        return {"prompt": prompt, "n_predict": num_tokens, "boundaries": boundaries}


class Peer(Side):
    """llama-server. A conversation keeps its slot where there are enough: it need not be found."""

    name = "llama-server"

    def __init__(self, options: argparse.Namespace, tokenizer: Tokenizer, vocab_size: int) -> None:
        arguments = ["-m", options.model, "-np", options.slots, "-c", options.slots * options.ctx]
        arguments += ["-t", options.threads, "-tb", options.threads, "-fa", "on", "--no-webui"]
        super().__init__([str(options.peer)], [str(word) for word in arguments], options.model)
        self._has_slots = options.conversations <= options.slots
        # Streaming, it keeps back the ids of tokens that end inside a character: it must not choose them.
        broken = [token for token in range(vocab_size) if _is_broken(tokenizer.token_bytes(token))]
        self._bias = [[token, False] for token in broken]

    def body(self, prompt: list[int], num_tokens: int, conversation: int, boundaries: list[int]) -> dict[str, Any]:
        slot = {"id_slot": conversation} if self._has_slots else {}
        return slot | {
            "prompt": prompt,
            "n_predict": num_tokens,
            "ignore_eos": True,
            "logit_bias": self._bias,
            "temperature": 0,
            "top_k": 1,
            "samplers": ["top_k"],
            "cache_prompt": True,
            "stream": True,
            "return_tokens": True,
        }


def _is_broken(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return True
    return False
