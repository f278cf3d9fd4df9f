"""llama.cpp as a shared library, measured in a process of its own: a request on its input, rates on its output.

The phases are llama-bench's: a fresh context for each case, a warm-up, the depth read for real, random tokens, and the
clock around what comes then. Only C functions of old are used, and the places of the settings are checked.
"""

import ctypes
import json
import sys
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

GGML_TYPES = {"f32": 0, "f16": 1, "q8_0": 8, "bf16": 30}
F16 = GGML_TYPES["f16"]
MOST_ROWS, STEP_TOKENS = 2048, 512  # llama-bench's -b and -ub
CONTEXT_ROUNDING = 256
_P, _I = ctypes.c_void_p, ctypes.c_int32


class Params(ctypes.Structure):
    """llama_model_params or llama_context_params, with room for what versions add; copied to the callee whole."""

    _fields_ = (("words", ctypes.c_uint32 * 96),)


class Rows(ctypes.Structure):
    """llama_batch."""

    _fields_ = (
        ("n_tokens", _I),
        ("token", _P),
        ("embd", _P),
        ("pos", _P),
        ("n_seq_id", _P),
        ("seq_id", _P),
        ("logits", _P),
    )


_Log = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, _P)
_FUNCTIONS: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "llama_log_set": (None, (_Log, _P)),
    "llama_backend_init": (None, ()),
    "llama_model_default_params": (Params, ()),
    "llama_context_default_params": (Params, ()),
    "llama_model_load_from_file": (_P, (ctypes.c_char_p, Params)),
    "llama_model_get_vocab": (_P, (_P,)),
    "llama_vocab_n_tokens": (_I, (_P,)),
    "llama_init_from_model": (_P, (_P, Params)),
    "llama_free": (None, (_P,)),
    "llama_decode": (_I, (_P, Rows)),
    "llama_synchronize": (None, (_P,)),
    "llama_get_memory": (_P, (_P,)),
    "llama_memory_clear": (None, (_P, ctypes.c_bool)),
}
_silent = _Log(lambda *_: None)  # must outlive the library's use of it


def main() -> None:
    """Exit status 1 and one line on standard error when the library is another than it should be."""
    request: dict[str, Any] = json.load(sys.stdin)
    try:
        library = _open(request["library"])
        print(json.dumps({"version": _version(library), "rates": _measure(library, request)}))
    except (OSError, AttributeError, RuntimeError) as error:
        sys.exit(f"{error}")


def _open(path: str) -> ctypes.CDLL:
    library = ctypes.CDLL(path)
    for name, (result, arguments) in _FUNCTIONS.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    library.llama_log_set(_silent, None)
    library.llama_backend_init()
    words = library.llama_context_default_params().words
    # n_ctx, n_batch, n_ubatch, n_seq_max; threads of both kinds; f16 keys and values.
    if [*words[0:4], *words[7:9], *words[26:28]] != [512, 2048, 512, 1, 4, 4, F16, F16]:
        raise RuntimeError("this version of llama.cpp lays its settings out differently")
    return library


def _version(library: ctypes.CDLL) -> str:
    try:
        function = library.llama_version
    except AttributeError:
        return ""
    function.restype = ctypes.c_char_p
    return function().decode(errors="replace")


def _measure(library: ctypes.CDLL, request: dict[str, Any]) -> list[float]:
    model = library.llama_model_load_from_file(request["model"].encode(), library.llama_model_default_params())
    if not model:
        raise RuntimeError(f"llama.cpp cannot load {request['model']}")
    vocab_size = library.llama_vocab_n_tokens(library.llama_model_get_vocab(model))
    return [_rate(_Context(library, model, vocab_size, case, request["kv_format"]), case) for case in request["cases"]]


def _rate(context: "_Context", case: dict[str, Any]) -> float:
    """Tokens per second of all sequences together. The context is freed."""
    is_prompt, num_tokens, depth, batch = (case[key] for key in ("is_prompt", "num_tokens", "depth", "batch"))
    try:
        context.read(min(num_tokens, STEP_TOKENS) if is_prompt else 1, 0)  # warm-up
        context.forget()
        if depth:
            context.read(depth, 0)
        begin = perf_counter()
        if is_prompt:
            context.read(num_tokens, depth)
        else:
            for step in range(num_tokens):
                context.read(1, depth + step)
        return num_tokens * batch / (perf_counter() - begin)
    finally:
        context.close()


class _Context:
    """`batch` sequences side by side."""

    def __init__(self, library: ctypes.CDLL, model: int, vocab_size: int, case: dict[str, Any], kv_format: str) -> None:
        self._library, self._batch, self._vocab_size = library, case["batch"], vocab_size
        self._rng = np.random.default_rng(0)
        params = library.llama_context_default_params()
        each = -(-(case["depth"] + case["num_tokens"]) // CONTEXT_ROUNDING) * CONTEXT_ROUNDING
        words = params.words
        words[0], words[1], words[2], words[3] = each * self._batch, MOST_ROWS, STEP_TOKENS, self._batch
        words[7] = words[8] = case["threads"]
        words[26] = words[27] = GGML_TYPES[kv_format]
        self._handle = library.llama_init_from_model(model, params)
        if not self._handle:
            raise RuntimeError("llama.cpp cannot make a context of that size")

    def read(self, count: int, start: int) -> None:
        """So many random tokens of every sequence, from place `start` on; logits of each one's last."""
        places = np.tile(np.arange(start, start + count, dtype=np.int32), self._batch)
        sequences = np.repeat(np.arange(self._batch, dtype=np.int32), count)
        wanted = (places == start + count - 1).astype(np.int8)
        for first in range(0, len(places), MOST_ROWS):
            part = slice(first, first + MOST_ROWS)
            self._decode(places[part], sequences[part], wanted[part])
        self._library.llama_synchronize(self._handle)

    def _decode(self, places: NDArray[np.int32], sequences: NDArray[np.int32], wanted: NDArray[np.int8]) -> None:
        rows = len(places)
        tokens = self._rng.integers(0, self._vocab_size, rows).astype(np.int32)
        ones = np.ones(rows, np.int32)
        pointers = sequences.ctypes.data + 4 * np.arange(rows, dtype=np.uint64)  # of a list of one id for each row
        arrays = (tokens, places, ones, pointers, wanted)
        token, place, one, pointer, want = (np.ascontiguousarray(array).ctypes.data for array in arrays)
        status = self._library.llama_decode(self._handle, Rows(rows, token, None, place, one, pointer, want))
        if status:
            raise RuntimeError(f"llama_decode returned {status}")

    def forget(self) -> None:
        self._library.llama_memory_clear(self._library.llama_get_memory(self._handle), False)

    def close(self) -> None:
        self._library.llama_free(self._handle)


if __name__ == "__main__":
    main()
