"""Coarse weights: native runs against f64 arithmetic on the *dequantised* weights, per family and role.

What rounding of activations must cost is computed and not guessed: the contract's numerics table, applied to the
oracle's linear layers in otherwise exact arithmetic, gives the error that any faithful implementation has. The native
run may have a little more, and must lie closer to that model than the model lies to the oracle.
"""

import numpy as np
import pytest
import torch

from qwick.formats import BF16, F16, Q4_0, Q4_K, Q5_K, Q6_K, Q8_0
from qwick.ops.contract import Role
from qwick.ops.torch import TorchBackend
from tests.parity.backends import ISAS, open_backend
from tests.parity.compare import kl_divergence, relative_error
from tests.parity.network import Piece, Runner
from tests.parity.rounding import RoundingBackend, modelled

LENGTH = 65
NAMES = ("ratio2_untied", "true_heads", "whole_blocks")
FORMATS = {"bf16": BF16, "f16": F16, "q8_0": Q8_0, "q4_0": Q4_0, "q4_k": Q4_K, "q5_k": Q5_K, "q6_k": Q6_K}
OF_256 = ("q4_k", "q5_k", "q6_k")
# The scalar ISA is slow, and one definition serves all of its block families.
OF_SCALAR = ("bf16", "q8_0", "q6_k")
FORMATS_OF = {isa: OF_SCALAR if isa == "scalar" else tuple(FORMATS) for isa in ISAS}
CASES = [
    (isa, format, name)
    for isa in ISAS
    for format in FORMATS_OF[isa]
    for name in (NAMES[2:] if format in OF_256 else NAMES[: 2 + (isa != "scalar")])
]

# Relative RMS error of the logits, and mean KL in nats, at sigma 3. Stated, and checked against what was measured.
LIMITS = {
    "values": {Role.DECODE: (2e-5, 1e-8), Role.PROMPT: (1e-2, 5e-4)},
    "blocks": {Role.DECODE: (6e-2, 2e-2), Role.PROMPT: (1.6e-2, 1e-3)},
}
LIMITS_OF_BF16 = {"values": (1.6e-2, 1e-3), "blocks": (2e-2, 1.2e-3)}  # prompt rows of amx
# How far from the model's error, of its size; an error of other roundings would be 1.4 away. Prompt rows: most of it is
# the head's int8, for which the layers amplify what little f32 differs from f64.
APART = {Role.DECODE: 0.75, Role.PROMPT: 1.0}


@pytest.fixture(scope="module")
def exact_and_modelled(cases):
    made = {}

    def make(name, format, role, isa):
        key = name, format, role, role is Role.PROMPT and isa == "amx"
        if key not in made:
            case = cases(name)
            runner = Runner(case.folder, RoundingBackend(torch.float64), format=FORMATS[format])
            ids = case.ids[:LENGTH]
            made[key] = runner.one(Piece(0, ids, role=role)).logits, modelled(runner, ids, role, isa)
        return made[key]

    return make


@pytest.mark.parametrize(("isa", "format", "name"), CASES)
@pytest.mark.parametrize("role", Role)
def test_errors_are_those_of_the_contracts_roundings(cases, exact_and_modelled, isa, format, role, name):
    ids = cases(name).ids[:LENGTH]
    exact, model = exact_and_modelled(name, format, role, isa)
    actual = Runner(cases(name).folder, open_backend(isa), format=FORMATS[format]).one(Piece(0, ids, role=role)).logits
    error, expected = relative_error(actual, exact).total, relative_error(model, exact).total
    to_model = relative_error(actual, model).total
    kl = float(kl_divergence(actual, exact).mean())
    print(f"{isa} {format} {role.name}: error {error:.2e}, modelled {expected:.2e}, apart {to_model:.2e}, KL {kl:.1e}")
    kind = "blocks" if FORMATS[format].is_blocks else "values"
    most, most_kl = LIMITS_OF_BF16[kind] if role is Role.PROMPT and isa == "amx" else LIMITS[kind][role]
    f32 = cases(name).tolerance(LENGTH)[0].total
    assert error < most
    assert kl < most_kl
    assert error < 1.1 * expected + f32
    assert to_model < APART[role] * expected + f32
    # The winner stays where the two best are clearly apart.
    best = np.sort(exact, axis=-1)
    sure = best[:, -1] - best[:, -2] > 10 * error * exact.std()
    assert (actual.argmax(-1) == exact.argmax(-1))[sure].all()


@pytest.mark.parametrize(("isa", "format"), [(isa, f) for isa in ISAS for f in FORMATS_OF[isa]])
def test_f16_keys_and_values_cost_little(cases, isa, format):
    """f16 holds 11 bits: an error of 2^-12 per value of which a softmax averages many."""
    case = cases("whole_blocks" if format in OF_256 else "ratio2_untied")
    rows = [
        Runner(case.folder, open_backend(isa), format=FORMATS[format], kv_format=kv)
        .one(Piece(0, case.ids[:LENGTH]))
        .logits
        for kv in ("f16", "f32")
    ]
    assert 0 < relative_error(*rows).total < 2e-2


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("kv_format", ["f16", "bf16", "q8_0"])
def test_rounded_keys_and_values_with_f32_weights(cases, isa, kv_format):
    case = cases("ratio2_untied")
    exact = case.oracle.logits[:LENGTH]
    actual, rounded = (
        Runner(case.folder, backend, kv_format=kv_format).one(Piece(0, case.ids[:LENGTH])).logits
        for backend in (open_backend(isa), TorchBackend(torch.float64))
    )
    error, expected = relative_error(actual, exact).total, relative_error(rounded, exact).total
    assert expected / 2 < error < 2 * expected
    assert relative_error(actual, rounded).total < 0.5 * expected
