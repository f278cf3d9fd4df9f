"""How far each engine is from exact arithmetic on the same GGUF file.

    python benchmarks/peers/compare_logits.py FILE.gguf … [--tokens 64] [--library libllama.so]

Exact: gguf-py's dequantised weights in transformers, in f64 up to 200 million weights, else in f32, whose own error
(about 1e-6) is far below all others here. A line a file and engine: relative RMS error of the logits, mean KL in nats,
how often the best token is the same; then the same of the MTP block over the exact hidden states, if the file has one.
llama.cpp: f32 keys and values, no flash attention; its library is the package xllamacpp's unless named. qwick: decode
rows and prompt rows on this machine's best instruction set, f32 keys and values.
"""

import argparse
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import gguf
import numpy as np
import torch
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from qwick.ops.contract import Role  # noqa: E402
from tests.parity.backends import BEST_ISA, open_backend  # noqa: E402
from tests.parity.compare import kl_divergence, relative_error  # noqa: E402
from tests.parity.gguf_oracle import open_oracle  # noqa: E402
from tests.parity.llama_cpp import Library, installed_library  # noqa: E402
from tests.parity.network import Piece, Runner  # noqa: E402

MOST_F64_WEIGHTS = 200_000_000
Measured = tuple[str, NDArray, NDArray | None]  # engine, logits, drafts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--library", type=Path, default=installed_library())
    options = parser.parse_args()
    if options.library is None:
        sys.exit("no library of llama.cpp: install xllamacpp or give --library")
    warnings.simplefilter("ignore")
    library = Library(options.library)
    print(f"llama.cpp {library.version}; qwick {BEST_ISA}; {options.tokens} random tokens\n")
    print(
        "| file | engine | error | KL | same best | drafts: error | KL | same best |\n|---|---|---|---|---|---|---|---|"
    )
    for file in options.files:
        compare(file, library, options.tokens)


def compare(file: Path, library: Library, num_tokens: int) -> None:
    reader = gguf.GGUFReader(file)
    sizes = {t.name: int(t.n_elements) for t in reader.tensors}
    vocab_size = next(int(t.shape[1]) for t in reader.tensors if t.name == "token_embd.weight")
    del reader
    exact_dtype = torch.float64 if sum(sizes.values()) < MOST_F64_WEIGHTS else torch.float32
    ids = np.random.default_rng(0).integers(0, vocab_size * 8 // 10, num_tokens)
    logits, hidden, drafts = exact(file, ids, exact_dtype)
    for engine, rows, drafted in measured(file, library, ids, None if drafts is None else hidden):
        columns = cells(rows, logits) + ("" if drafts is None else cells(drafted, drafts))
        print(f"| {file.stem} | {engine} |{columns}", flush=True)


def exact(file: Path, ids: NDArray, dtype: torch.dtype) -> tuple[NDArray, NDArray, NDArray | None]:
    """Logits, hidden states, drafts. The weights are gone before the engines load theirs."""
    oracle = open_oracle(file, dtype)
    out = oracle.run(ids)
    with_mtp = any(name.startswith("mtp.") for name in oracle.tensors)
    drafts = oracle.draft(ids[1:], out.hidden[:-1]).logits.numpy() if with_mtp else None
    return out.logits.numpy(), out.hidden.numpy(), drafts


def measured(file: Path, library: Library, ids: NDArray, hidden: NDArray | None) -> Iterator[Measured]:
    before = None if hidden is None else hidden[:-1].astype(np.float32)
    with library.open(file, threads=2) as peer:
        rows = peer.sequence().feed(ids, 0).logits
        yield "llama.cpp", rows, None if before is None else peer.drafts().feed(ids[1:], 1, before).logits
    runner = Runner(file, open_backend(BEST_ISA), max_len=len(ids), num_slots=2, max_tokens=len(ids))
    for slot, role in enumerate(Role):
        rows = runner.one(Piece(slot, ids, role=role)).logits
        piece = Piece(slot, ids[1:], role=role, hidden=before)
        yield f"qwick {role.name.lower()}", rows, None if before is None else runner.one(piece, "draft").logits


def cells(actual: NDArray, expected: NDArray) -> str:
    same = float((actual.argmax(-1) == expected.argmax(-1)).mean())
    kl = float(kl_divergence(actual, expected).mean())
    return f" {relative_error(actual, expected).total:.2e} | {kl:.1e} | {same:.0%} |"


if __name__ == "__main__":
    main()
