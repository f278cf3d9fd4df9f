"""Checks of weights pass on what is right, and go red for one wrong byte and for wrong arithmetic."""

import numpy as np
import pytest

from qwick.ops.contract import Role
from qwick.ops.product import Product
from qwick.verify import weights
from qwick.verify.report import Outcome
from qwick.verify.weights import kernel_checks, memory_checks
from tests.verify.conftest import failures


def spec_named(subject, name):
    return next(spec for spec in subject.source.specs if spec.name == name)


def test_a_good_file_passes(subject):
    assert failures(memory_checks(subject)) == []
    assert failures(kernel_checks(subject)) == []


@pytest.mark.parametrize("name", ["embed_tokens", "layers.0.linear_attn.in_proj_qkv", "layers.3.mlp.down_proj"])
@pytest.mark.parametrize("place", [0, 5])
def test_one_flipped_bit_in_a_matrix_is_found(subject, name, place):
    """In the first row, which is always compared."""
    subject.weight(spec_named(subject, name)).view()[place] ^= 1
    red = [check for check in memory_checks(subject) if check.outcome == Outcome.FAILED]
    assert [check.group for check in red] == ["memory equals the file"]
    assert f"{name} row 0" in red[0].detail


@pytest.mark.parametrize("name", ["norm", "layers.0.linear_attn.conv1d", "layers.1.linear_attn.A_log"])
def test_one_flipped_bit_in_a_vector_is_found(subject, name):
    subject.weight(spec_named(subject, name)).view()[0] ^= 1
    assert failures(memory_checks(subject)) == ["vectors"]


def test_a_wrong_permutation_is_found(subject, monkeypatch):
    """As if the v heads had been loaded in the file's order."""
    spec = spec_named(subject, "layers.0.linear_attn.in_proj_z")
    good = subject.source.checkpoint.read

    def unpermuted(name, start, stop):
        if name == subject.source.files[spec.name]:
            place = int(np.flatnonzero(spec.row_order == start)[0])
            return good(name, place, place + 1)
        return good(name, start, stop)

    monkeypatch.setattr(subject.source.checkpoint, "read", unpermuted)
    assert failures(memory_checks(subject)) == ["f32"]


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("wrong", ["one output row", "one operand"])
def test_wrong_arithmetic_is_found(subject, monkeypatch, role, wrong):
    right = Product.__call__

    def wrong_product(self, x, asked):
        if asked != role:
            return right(self, x, asked)
        if wrong == "one operand":
            x = x.copy()
            x[:, 0] = 0
        y = right(self, x, asked).copy()
        if wrong == "one output row":
            y[3] *= 1.2
        return y

    monkeypatch.setattr(weights.Product, "__call__", wrong_product)
    assert failures(kernel_checks(subject)) == [f"f32, {role.name.lower()} rows"]


def test_a_nan_is_an_error(subject, monkeypatch):
    monkeypatch.setattr(weights.Product, "__call__", lambda self, x, role: np.full((len(x), 1 << 12), np.nan))
    assert len(failures(kernel_checks(subject))) == 2
