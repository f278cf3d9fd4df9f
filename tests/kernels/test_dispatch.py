"""Kernels are chosen from an ordered list, once, visibly; anyone can force one; and the forced one runs."""

import signal
import subprocess
import sys

import numpy as np
import pytest

from qwick import _kernels
from qwick._kernels import leaves
from qwick.errors import KernelError
from qwick.formats import F32
from qwick.ops.contract import Batch, Outputs, Role, Run
from qwick.ops.native import NativeBackend, describe_machine
from tests.kernels.plain_cache import CACHE

ALL = ["scalar", "avx2", "avx_vnni", "avx512", "avx512_vnni", "avx512_bf16", "amx"]
POSSIBLE = _kernels.possible_isas()
K, N = 352, 40


def test_possible_isas_are_in_order_and_start_with_scalar():
    assert POSSIBLE[0] == "scalar"
    assert [name for name in ALL if name in POSSIBLE] == POSSIBLE


TRIAL = """
import signal, sys
from qwick import _kernels
seen, fault = [], int(sys.argv[1])
signal.signal(fault, lambda *_: seen.append(fault))
for _ in range(2):
    assert not _kernels.survives_signal(fault)
    assert _kernels.survives_signal(0)
assert not seen
signal.raise_signal(fault)
assert seen == [fault]
"""


@pytest.mark.parametrize("fault", [signal.SIGILL, signal.SIGSEGV, signal.SIGBUS])
def test_a_fault_in_a_trial_is_caught_and_the_handler_comes_back(fault):
    """AMX counts only if a product survives: on some hosts it is granted and then dies."""
    subprocess.run([sys.executable, "-c", TRIAL, str(int(fault))], check=True)


def test_the_best_one_is_the_default(monkeypatch):
    monkeypatch.delenv("QWICK_ISA", raising=False)
    assert NativeBackend(1).isa == POSSIBLE[-1] == describe_machine().isa


@pytest.mark.parametrize("name", ["sse9", "AVX2", "scalar ", *[n for n in ALL if n not in POSSIBLE]])
def test_an_unknown_or_impossible_name_is_an_error_naming_the_possible_ones(monkeypatch, name):
    monkeypatch.setenv("QWICK_ISA", name)
    for ask in (describe_machine, lambda: NativeBackend(1), lambda: _kernels.kernel_choice(name)):
        with pytest.raises(KernelError, match=", ".join(POSSIBLE)):
            ask()


@pytest.mark.parametrize("isa", POSSIBLE)
def test_leaves_come_from_the_forced_isa_or_from_below(isa):
    choice = _kernels.kernel_choice(isa)
    assert len(choice) == 85
    assert set(choice.values()) <= {name for name in POSSIBLE if ALL.index(name) <= ALL.index(isa)}
    if isa == "scalar":
        assert set(choice.values()) == {"scalar"}
    if isa == "avx2":
        assert choice["dots.u4k"] == choice["panel_product"] == choice["attend_block.f16"] == "avx2"
    if isa == "avx_vnni":
        assert choice["dots.u4k"] == choice["strip_product"] == "avx_vnni"
        assert choice["dots.bf16"] == choice["panel_product"] == "avx2"
    if ALL.index(isa) >= ALL.index("avx512"):
        assert "avx_vnni" not in choice.values()
    if isa == "avx512":
        assert choice["dots.u4k"] == choice["dots.bf16"] == "avx512"
    if isa in ("avx512_vnni", "avx512_bf16", "amx"):
        assert choice["dots.u4k"] == "avx512_vnni"
        assert choice["dots.bf16"] == "avx512"
    form = "amx" if isa == "amx" else "scalar"
    assert choice["prompt_form"] == form
    if isa == "amx":
        assert choice["attend_prompt.f16"] == choice["load_prompt_query.f16"] == "amx"
        assert choice["attend_block.f16"] == choice["attend_prompt.f32"] == "avx512"
        known = [leaf for leaf in choice if leaf.startswith(("round_strip", "strip_product", "decode_panel."))]
        assert {choice[leaf] for leaf in known if leaf != "decode_panel.f32"} == {"amx"}


def program_output(isa, x, weight):
    backend = NativeBackend(1, 1, isa)
    table = backend.add_matrix("x", x.shape, F32, [(0, x)])
    w = backend.add_matrix("w", weight.shape, F32, [(0, weight)])
    backend.open_cache(CACHE)

    def network(ops, step):
        return Outputs(hidden=ops.linear(ops.embed(table, step), [w])[0])

    angles = np.zeros((len(x), 1), np.float32)
    run = Run(len(x), Role.DECODE, 0, 0, [])
    batch = Batch(np.arange(len(x), dtype=np.int32), angles, angles, (run,), np.empty(0, np.int32))
    return backend.compile(network, max_tokens=len(x)).run(batch).hidden.copy()


def test_the_forced_isa_is_the_one_that_runs(monkeypatch):
    # Sums in another order give other bits, so bits tell which leaf was called.
    rng = np.random.default_rng(0)
    x, weight = (rng.standard_normal((n, K)).astype(np.float32) for n in (5, N))
    outputs = {isa: program_output(isa, x, weight) for isa in POSSIBLE}
    w = NativeBackend(1).add_matrix("w", weight.shape, F32, [(0, weight)])
    for isa in set(leaves.isas()) & set(POSSIBLE):
        np.testing.assert_array_equal(outputs[isa], leaves.dots(isa, x, w, 0, N))
        monkeypatch.setenv("QWICK_ISA", isa)
        np.testing.assert_array_equal(outputs[isa], program_output(None, x, weight))
    if "avx2" in POSSIBLE:
        assert (outputs["scalar"] != outputs["avx2"]).any()
