"""A cap on memory: what it is divided into, what is refused, and that the bounds of what comes later are bounds."""

import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwick.cache.spec import CacheSpec
from qwick.engine import memory_plan
from qwick.engine.memory_plan import MIB, check_weights, plan_memory, resident_bytes, scratch_bytes
from qwick.engine.wanted import SCORED_ROWS
from qwick.errors import CapacityError, UsageError
from qwick.model.config import parse_config
from qwick.model.model import open_model
from qwick.ops.contract import Batch, Role, Run
from tests.checkpoints import RELEASED, small_config, write_checkpoint

SPEC = CacheSpec(parse_config(RELEASED["0.8b"]).cache_shape(num_pages=0, num_slots=0))


def plan(cap, spec=SPEC, **changes):
    sizes = {"weights": 500 * MIB, "process": 80 * MIB, "scratch": 90 * MIB, "num_slots": 4, "context_len": 4096}
    return plan_memory(spec, cap=cap, **{**sizes, "wanted_pages": 10_000, **changes})


@given(st.integers(900 * MIB, 20_000 * MIB), st.integers(0, 20_000), st.sampled_from(["f16", "q8_0", "f32"]))
def test_a_plan_stays_below_its_cap_and_leaves_no_page_unused(cap, wanted, kv_format):
    spec = CacheSpec(replace(SPEC.shape, kv_format=kv_format))
    found = plan(cap, spec, wanted_pages=wanted)
    assert sum(found.parts.values()) == found.total <= cap
    assert found.pages == found.num_pages * spec.page_bytes
    assert found.states >= 4 * spec.slot_bytes
    assert spec.pages_for(4096) <= found.num_pages <= max(wanted, spec.pages_for(4096))
    assert found.num_pages >= wanted or cap - found.total < spec.page_bytes


def test_without_a_cap_everything_is_had():
    assert plan(None, wanted_pages=77).num_pages == 77
    assert plan(None, wanted_pages=7).num_pages == 64  # one whole context


def test_what_does_not_fit_is_told_with_all_its_parts():
    enough = plan(None, wanted_pages=0).total
    assert plan(enough).num_pages == 64
    with pytest.raises(CapacityError):
        plan(enough - 1)
    with pytest.raises(CapacityError, match="--memory 719 MiB is too little") as caught:
        plan(719 * MIB)
    text = str(caught.value)
    for part in (
        "one context of 4,096 tokens",
        "weights 500",
        "program 80",
        "scratch 90",
        "KV pages 56",
        "give more, or",
    ):
        assert part in text
    parts = [
        int(size.replace(",", "")) for size in re.findall(r"(?:weights|program|states|scratch|pages) ([\d,]+)", text)
    ]
    assert sum(parts) == pytest.approx(enough / MIB, abs=3)


def test_the_remedy_is_for_what_weighs_most():
    with pytest.raises(CapacityError, match="--kv-format q8_0"):
        plan(1000 * MIB, context_len=262_144)
    with pytest.raises(CapacityError, match="smaller --ctx-size, or fewer"):
        plan(1000 * MIB, CacheSpec(replace(SPEC.shape, kv_format="q8_0")), context_len=262_144)
    with pytest.raises(CapacityError, match="smaller model or --format"):
        plan(1000 * MIB, weights=1200 * MIB)


def test_weights_that_leave_nothing_are_refused_before_they_are_read():
    check_weights(600 * MIB, 500 * MIB, 80 * MIB)
    with pytest.raises(CapacityError, match="weights take 500 MiB, Python and its libraries 80"):
        check_weights(580 * MIB, 500 * MIB, 80 * MIB)


def test_resident_memory_is_what_the_kernel_counts(monkeypatch, tmp_path):
    before = resident_bytes()
    held = np.ones(64 * MIB, np.uint8)
    assert 60 * MIB < resident_bytes() - before < 80 * MIB
    del held
    monkeypatch.setattr(memory_plan, "_STATM", tmp_path / "none")
    with pytest.raises(UsageError, match="leave it out"):
        resident_bytes()


SHAPES = {
    "deep": small_config(num_hidden_layers=8),
    "wide": small_config(hidden_size=256, intermediate_size=768, vocab_size=20_000, head_dim=128),
    "many heads": small_config(
        linear_num_key_heads=8, linear_num_value_heads=24, linear_value_head_dim=64, num_attention_heads=16
    ),
}


def most_scratch(model, step_tokens, sequences, context_len):
    """After batches that need most: whole prompts, short runs behind long contexts, all logits, and both together."""
    num_pages = -(-context_len // 64)
    model.open(num_pages=num_pages, num_slots=sequences + 1, max_tokens=step_tokens)
    pages, half = np.arange(num_pages, dtype=np.int32), model.config.attention.rotary_dim // 2

    def run(runs, wanted, top_k):
        count = sum(run.num_tokens for run in runs)
        zeros = np.zeros((count, half), np.float32)
        rows = np.array(wanted, np.int32)
        batch = Batch(np.zeros(count, np.int32), zeros, zeros, tuple(runs), rows, top_k, logsumexp=top_k > 0)
        model.forward(batch)

    whole, short = min(step_tokens, context_len), max(1, min(8, step_tokens // sequences))
    begin = context_len - short
    for role in Role:
        run([Run(whole, role, 0, 0, pages)], [whole - 1], 1)
    for top_k in (0, 128):
        behind = [Run(short, Role.DECODE, begin, slot, pages) for slot in range(sequences)]
        run(behind, [short * i for i in range(sequences)], top_k)
    scored = list(range(whole - SCORED_ROWS, whole))
    run([Run(whole, Role.PROMPT, 0, 0, pages)], scored, 0)
    mixed = [Run(1, Role.DECODE, begin, slot, pages) for slot in range(sequences - 1)]
    rest = min(step_tokens - len(mixed), context_len)
    run([*mixed, Run(rest, Role.PROMPT, 0, sequences, pages)], list(range(len(mixed))), 1)
    return model.program("forward").scratch_bytes


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("sizes", [(512, 1, 2048), (512, 64, 8192), (40, 3, 200), (96, 32, 1024)])
def test_the_kernels_take_no_more_than_was_reckoned(tmp_path_factory, name, sizes):
    folder = tmp_path_factory.getbasetemp() / f"plan-{name}"
    if not folder.exists():
        write_checkpoint(folder, SHAPES[name], 1)
    model = open_model(folder, threads=2, threads_batch=2)
    step_tokens, sequences, context_len = sizes
    reckoned = scratch_bytes(
        model.config,
        buffer_bytes=0,
        threads=2,
        step_tokens=step_tokens,
        max_sequences=sequences,
        context_len=context_len,
    )
    found = most_scratch(model, *sizes)
    assert found <= reckoned - 12 * MIB  # of that, Python's
    assert reckoned < 8 * found + 40 * MIB  # no wild guess either
