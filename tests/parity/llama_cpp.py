"""llama.cpp as a library, by ctypes: logits of every row, and those of its MTP draft context.

Works on a `libllama.so` (benchmarks/peers/build.sh) and on the extension module of the PyPI package `xllamacpp`, which
exports the same C functions. Settings that make it comparable: f32 keys and values, no flash attention, no GPU.
"""

import ctypes
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import util
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
F32, MTP, NO_FLASH, DECODE = 0, 1, 0, 1

_P, _I = ctypes.c_void_p, ctypes.c_int32


class Params(ctypes.Structure):
    """llama_model_params or llama_context_params, and room for what other versions add: copied to the callee whole.

    Only words at places that have the same meaning in every version we use are touched (`Library._check_layout`).
    """

    _fields_ = (("words", ctypes.c_uint32 * 96),)


class Embedding(ctypes.Structure):
    _fields_ = (("data", ctypes.POINTER(ctypes.c_float)), ("n_rows", ctypes.c_size_t), ("n_embd", ctypes.c_size_t))


LogCallback = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, _P)

# name -> (result, arguments); those after the blank line are C++ in the staging header and exported mangled.
FUNCTIONS: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "llama_version": (ctypes.c_char_p, ()),
    "llama_log_set": (None, (LogCallback, _P)),
    "llama_model_default_params": (Params, ()),
    "llama_context_default_params": (Params, ()),
    "llama_model_load_from_file": (_P, (ctypes.c_char_p, Params)),
    "llama_model_free": (None, (_P,)),
    "llama_model_get_vocab": (_P, (_P,)),
    "llama_model_n_embd": (_I, (_P,)),
    "llama_vocab_n_tokens": (_I, (_P,)),
    "llama_tokenize": (_I, (_P, ctypes.c_char_p, _I, _P, _I, ctypes.c_bool, ctypes.c_bool)),
    "ggml_quantize_chunk": (
        ctypes.c_size_t,
        (ctypes.c_int, _P, _P, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, _P),
    ),
    "llama_init_from_model": (_P, (_P, Params)),
    "llama_free": (None, (_P,)),
    "llama_batch_ext_init": (_P, (_P,)),
    "llama_batch_ext_free": (None, (_P,)),
    "llama_batch_ext_add_token": (_I, (_P, _I, _I)),
    "llama_batch_ext_set_pos": (ctypes.c_bool, (_P, _I, ctypes.POINTER(_I))),
    "llama_batch_ext_set_embd_state": (ctypes.c_bool, (_P, _I, Embedding)),
    "llama_batch_ext_set_embd_token": (ctypes.c_bool, (_P, _I, Embedding)),
    "llama_batch_ext_set_output_logits": (ctypes.c_bool, (_P, _I, ctypes.c_bool)),
    "llama_get_memory": (_P, (_P,)),
    "llama_memory_seq_rm": (ctypes.c_bool, (_P, _I, _I, _I)),
    "llama_process": (_I, (_P, ctypes.c_int, _P)),
    "llama_get_logits_ith": (ctypes.POINTER(ctypes.c_float), (_P, _I)),
    "_Z26llama_set_embeddings_nextnP13llama_contextbb": (None, (_P, ctypes.c_bool, ctypes.c_bool)),
    "_Z30llama_get_embeddings_nextn_ithP13llama_contexti": (ctypes.POINTER(ctypes.c_float), (_P, _I)),
}


def installed_library() -> Path | None:
    """QWICK_LLAMA_LIBRARY if set, else the package xllamacpp's module, else None."""
    named = os.environ.get("QWICK_LLAMA_LIBRARY")
    if named:
        return Path(named)
    spec = util.find_spec("xllamacpp")
    folders = [] if spec is None else [Path(f) for f in spec.submodule_search_locations or ()]
    return next((path for folder in folders for path in folder.glob("xllamacpp*.so")), None)


@dataclass(frozen=True)
class Rows:
    """[tokens, vocab] and [tokens, hidden_size] (after the last norm)."""

    logits: Floats
    hidden: Floats


class Library:
    def __init__(self, path: Path) -> None:
        self._library = ctypes.CDLL(str(path))
        for name, (result, arguments) in FUNCTIONS.items():
            function = getattr(self._library, name)
            function.restype, function.argtypes = result, arguments
        self._silent = LogCallback(lambda level, text, data: None)  # must outlive the library's use of it
        self._library.llama_log_set(self._silent, None)
        self._check_layout()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._library, name)

    @property
    def version(self) -> str:
        return self.llama_version().decode()

    def _check_layout(self) -> None:
        """The defaults, where we expect them: another layout must be an error and not a wrong setting."""
        words = self.llama_context_default_params().words
        # n_ctx, n_batch, n_ubatch, n_seq_max; threads; attention kind, flash attention (auto); f16 keys and values.
        found = [*words[0:4], *words[7:9], *words[9:14], *words[26:28]]
        auto = 2**32 - 1
        assert found == [512, 2048, 512, 1, 4, 4, 0, auto, auto, auto, auto, 1, 1], found

    def encode(self, values: Floats, ggml_type: int, row_bytes: int) -> NDArray[np.uint8]:
        """Rows [n, k] -> [n, row_bytes], by its own block encoders, without an importance matrix."""
        values = np.ascontiguousarray(values, np.float32)
        rows, cols = values.shape
        blocks = np.empty((rows, row_bytes), np.uint8)
        written = self.ggml_quantize_chunk(ggml_type, values.ctypes.data, blocks.ctypes.data, 0, rows, cols, None)
        assert written == blocks.nbytes, (written, blocks.nbytes)
        return blocks

    @contextmanager
    def open(self, path: Path, **options: Any) -> Iterator["Peer"]:
        """The model in `path`; see Peer for the options."""
        peer = Peer(self, path, **options)
        try:
            yield peer
        finally:
            peer.close()


class Peer:
    """A GGUF file in llama.cpp.

    max_len: tokens of context. repack: may it regroup weights for this CPU (its default)? Sums then differ a bit.
    vocab_only: no weights, tokenize alone.
    """

    def __init__(
        self,
        library: Library,
        path: Path,
        *,
        max_len: int = 512,
        threads: int = 1,
        repack: bool = True,
        vocab_only: bool = False,
    ) -> None:
        self.library, self.max_len, self.threads = library, max_len, threads
        params = library.llama_model_default_params()
        flags = (ctypes.c_uint8 * 6).from_buffer(params, 72)
        assert list(flags) == [0, 0, 1, 0, 0, 0], "another layout of llama_model_params"
        flags[0], flags[2], flags[5] = vocab_only, repack, not vocab_only  # the latter two: use_extra_bufts, load_mtp
        self.model = library.llama_model_load_from_file(str(path).encode(), params)
        if not self.model:
            raise ValueError(f"llama.cpp cannot load {path}")
        self.vocab = library.llama_model_get_vocab(self.model)
        self.vocab_size = library.llama_vocab_n_tokens(self.vocab)
        self.hidden_size = library.llama_model_n_embd(self.model)
        self.contexts: list[int] = []

    def close(self) -> None:
        for context in self.contexts:
            self.library.llama_free(context)
        self.contexts.clear()
        self.library.llama_model_free(self.model)

    def tokenize(self, text: str, *, special: bool = True) -> list[int]:
        raw = text.encode()
        ids = (_I * (len(raw) + 8))()
        count = self.library.llama_tokenize(self.vocab, raw, len(raw), ids, len(ids), False, special)
        assert count >= 0
        return list(ids[:count])

    def sequence(self) -> "Context":
        return Context(self, 0)

    def drafts(self) -> "Context":
        """The MTP block with its own keys and values: its tokens come with `hidden`."""
        return Context(self, MTP)


class Context:
    """One sequence of tokens, fed in order. kind: 0 the network, MTP its draft block."""

    def __init__(self, peer: Peer, kind: int) -> None:
        self.peer, library = peer, peer.library
        params = library.llama_context_default_params()
        words = params.words
        words[0] = words[1] = words[2] = peer.max_len  # n_ctx, n_batch, n_ubatch
        words[7] = words[8] = peer.threads
        words[9], words[13] = kind, NO_FLASH
        words[26] = words[27] = F32
        self.handle = library.llama_init_from_model(peer.model, params)
        if not self.handle:
            raise ValueError("llama.cpp cannot make a context")
        peer.contexts.append(self.handle)
        library._Z26llama_set_embeddings_nextnP13llama_contextbb(self.handle, True, False)

    def feed(self, ids: Sequence[int] | NDArray[np.integer], start: int, hidden: Floats | None = None) -> Rows:
        """Token ids[i] stands at place start + i; `hidden` [tokens, hidden_size]: what the draft block joins to it."""
        library, count = self.peer.library, len(ids)
        batch = library.llama_batch_ext_init(self.handle)
        try:
            for i, token in enumerate(ids):
                assert library.llama_batch_ext_add_token(batch, 0, int(token)) == i
                assert library.llama_batch_ext_set_pos(batch, i, ctypes.byref(_I(start + i)))
                assert library.llama_batch_ext_set_output_logits(batch, i, True)
                if hidden is not None:
                    row = np.ascontiguousarray(hidden[i], np.float32)
                    pointer = row.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
                    state = Embedding(pointer, 1, len(row))
                    ways = (library.llama_batch_ext_set_embd_state, library.llama_batch_ext_set_embd_token)
                    assert any(way(batch, i, state) for way in ways)  # the first is new; older versions return false
            status = library.llama_process(self.handle, DECODE, batch)
            assert status == 0, f"llama_process returned {status}"
        finally:
            library.llama_batch_ext_free(batch)
        state = library._Z30llama_get_embeddings_nextn_ithP13llama_contexti
        return Rows(
            self._rows(library.llama_get_logits_ith, count, self.peer.vocab_size),
            self._rows(state, count, self.peer.hidden_size),
        )

    def forget(self, start: int) -> None:
        """Drop the tokens from place `start` on; keys and values only, a recurrent state cannot be cut back."""
        memory = self.peer.library.llama_get_memory(self.handle)
        assert self.peer.library.llama_memory_seq_rm(memory, 0, start, -1)

    def _rows(self, row_of: Any, count: int, width: int) -> Floats:
        return np.stack([np.ctypeslib.as_array(row_of(self.handle, i), (width,)).copy() for i in range(count)])
