"""Parity with transformers, where it is installed and the model is a folder that it can open.

Both in f32 (qwick with `--format f32`, which rounds no operand): what is left is the order of sums.
"""

from collections.abc import Iterator
from importlib.util import find_spec
from math import prod
from typing import Any

import numpy as np

from qwick.formats import F32
from qwick.model.model import Model, open_model
from qwick.model.source import Source
from qwick.ops.contract import Batch, Float32, Int32, Role, Run
from qwick.ops.native import describe_machine
from qwick.verify.report import Check, failed, holds, skipped, within

GROUP, NAME = "parity with transformers", "logits"
BOUND = 1e-3  # of the logits' RMS: f32 against f32 is 1e-6 to 1e-4, a wrong network 0.1 or more
NUM_TOKENS = 48
BYTES_EACH = 6  # of memory for a parameter: one copy in f32 at a time, and what its loading takes besides
PAGE_LEN = 64


def parity_checks(source: Source, threads: int | None) -> Iterator[Check]:
    """One model after the other: both need not fit together."""
    reason = _obstacle(source)
    if reason:
        yield skipped(GROUP, NAME, reason)
        return
    ids = np.random.default_rng(4).integers(0, source.config.vocab_size, NUM_TOKENS).astype(np.int32)
    try:
        theirs = _logits_of_transformers(source, ids)
    except Exception as error:  # noqa: BLE001 (a version of the library that cannot open it: its matter, not ours)
        yield skipped(GROUP, NAME, f"transformers cannot run this folder: {type(error).__name__}: {error!s:.100}")
        return
    yield from compare(_logits(open_model(source, format=F32, threads=threads), ids), theirs)


def compare(ours: Float32, theirs: Float32) -> Iterator[Check]:
    """[tokens, vocab] each: the error relative to the logits' RMS, and the likeliest tokens where they are clear."""
    if ours.shape != theirs.shape:
        yield failed(GROUP, NAME, f"{list(ours.shape)} logits, transformers has {list(theirs.shape)}")
        return
    rms = float(np.sqrt(np.mean(theirs.astype(np.float64) ** 2)))
    error = float(np.sqrt(np.mean((ours.astype(np.float64) - theirs) ** 2))) / rms
    yield within(GROUP, NAME, error, BOUND, f"relative error over {len(ours)} tokens, f32 on both sides")
    top = np.sort(theirs, axis=1)[:, -2:]
    clear = top[:, 1] - top[:, 0] > 10 * BOUND * rms
    agree = ours.argmax(axis=1) == theirs.argmax(axis=1)
    yield holds(GROUP, "likeliest token", bool(agree[clear].all()), f"at {int(clear.sum())} places where it is clear")


def _obstacle(source: Source) -> str:
    """Why there is no comparison; empty when there can be one."""
    missing = [name for name in ("torch", "transformers") if find_spec(name) is None]
    if missing:
        return f"{' and '.join(missing)} not installed"
    if not source.path.is_dir():
        return "transformers reads folders, and this is a file"
    needed = BYTES_EACH * sum(prod(spec.shape) for spec in source.specs)
    available = describe_machine().available_bytes
    if needed > available:
        return f"needs {needed / 2**30:.1f} GiB of memory; {available / 2**30:.1f} are available"
    return ""


def _logits(model: Model[Any], ids: Int32) -> Float32:
    """All prompt tokens in one step."""
    model.open(num_pages=-(-len(ids) // PAGE_LEN), num_slots=1, max_tokens=len(ids), kv_format="f32")
    cos, sin = model.rope.angles(np.arange(len(ids)))
    run = Run(len(ids), Role.PROMPT, 0, 0, tuple(range(-(-len(ids) // PAGE_LEN))))
    logits = model.forward(Batch(ids, cos, sin, (run,), np.arange(len(ids), dtype=np.int32))).logits
    assert logits is not None
    return logits.copy()


def _logits_of_transformers(source: Source, ids: Int32) -> Float32:
    """Logits of a whole sequence, f32, no cache."""
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    library: Any = AutoModelForCausalLM
    model = library.from_pretrained(
        str(source.path), dtype=torch.float32, attn_implementation="eager", local_files_only=True
    )
    with torch.no_grad():
        found = model(torch.tensor([ids.tolist()]), use_cache=False).logits[0]
    return found.float().numpy()
