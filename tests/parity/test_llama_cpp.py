"""A file of llama.cpp's tools in qwick: the tensors it means, and logits as near to exact ones as llama.cpp's own.

The file has every storage type; what llama.cpp computes from it is recorded beside it (tests/golden/README.md), so none
of its code is needed here. test_llama_cpp_live.py runs it.
"""

import gguf
import numpy as np
import pytest
from numpy.typing import NDArray

from qwick.formats import FILE_DTYPES, FORMATS
from qwick.model.source import Source, open_source
from qwick.ops.contract import Role
from qwick.ops.native import decode
from tests.parity.backends import ISAS, open_backend
from tests.parity.compare import kl_divergence, relative_error
from tests.parity.gguf_oracle import Oracle, open_oracle
from tests.parity.golden import GOLDEN
from tests.parity.network import Piece, Runner
from tests.parity.reference import Reference

DECODED = "IQ3_S"  # of the MTP block's output projection: no kernel reads it

pytestmark = pytest.mark.filterwarnings("ignore::qwick.errors.FormatWarning")

# Relative RMS error of logits at sigma 3, against f64 arithmetic on gguf-py's dequantised weights; mean KL in nats.
# Decode rows round activations to int8 in runs of 32 (llama.cpp: 32 or 256, so 0.045), prompt rows to int16 per 512
# but for the head.
LIMITS = {Role.DECODE: (0.035, 6e-3), Role.PROMPT: (0.013, 8e-4)}
PEER_LIMIT = 0.06
FACTOR = {Role.DECODE: 0.8, Role.PROMPT: 0.4}  # of llama.cpp's error, at most; all types together
DRAFT_FACTOR = {Role.DECODE: 0.8, Role.PROMPT: 0.5}  # after one layer the head's int8 activations weigh more


@pytest.fixture(scope="module")
def recorded() -> dict[str, NDArray]:
    with np.load(GOLDEN.with_suffix(".npz")) as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def oracle() -> Oracle:
    return open_oracle(GOLDEN)


@pytest.fixture(scope="module")
def exact(oracle: Oracle, recorded: dict[str, NDArray]) -> Reference:
    return oracle.run(recorded["ids"])


@pytest.fixture(scope="module")
def exact_drafts(oracle: Oracle, recorded: dict[str, NDArray], exact: Reference) -> NDArray:
    """Over the hidden states that llama.cpp had."""
    hidden = exact.hidden.new_tensor(recorded["hidden"][:-1])
    return oracle.draft(recorded["ids"][1:], hidden).logits.numpy()


def test_the_record_is_what_the_file_says(recorded, exact, exact_drafts) -> None:
    for kind in ("prompt", "decoded"):
        assert 0 < relative_error(recorded[kind], exact.logits).total < PEER_LIMIT
    assert 0 < relative_error(recorded["drafts"], exact_drafts).total < PEER_LIMIT


def test_the_file_has_every_type() -> None:
    types = {tensor.tensor_type.name for tensor in gguf.GGUFReader(GOLDEN).tensors}
    assert types == {*FILE_DTYPES, DECODED}
    assert len(types) == len(FORMATS) + 1


def values_of(source: Source, name: str) -> NDArray[np.float32]:
    """What qwick reads for the tensor called `name` in the file, decoded."""
    spec = next(spec for spec in source.specs if source.files[spec.name] == name)
    if not spec.matrix:
        return source.vector(spec)
    rows = np.concatenate([window for _, window in source.windows(spec)])
    format = FILE_DTYPES.get(source.info(spec).dtype)
    return rows if format is None else decode(rows, format)


def test_tensors_are_those_of_gguf_py_bit_for_bit() -> None:
    with open_source(GOLDEN) as source:
        for tensor in gguf.GGUFReader(GOLDEN).tensors:
            shape = tuple(int(n) for n in reversed(tensor.shape))
            expected = gguf.dequantize(tensor.data, tensor.tensor_type).reshape(shape).astype(np.float32)
            actual = values_of(source, tensor.name)
            np.testing.assert_array_equal(
                actual.reshape(shape).view(np.uint32), expected.view(np.uint32), err_msg=tensor.name
            )


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("isa", ISAS)
def test_logits_are_nearer_than_llama_cpps(recorded, exact, isa: str, role: Role) -> None:
    ids, peer = recorded["ids"], recorded["decoded" if role is Role.DECODE else "prompt"]
    actual = Runner(GOLDEN, open_backend(isa)).one(Piece(0, ids, role=role)).logits
    error, peers = (relative_error(x, exact.logits).total for x in (actual, peer))
    kl = float(kl_divergence(actual, exact.logits).mean())
    print(f"{isa} {role.name}: error {error:.2e}, llama.cpp {peers:.2e}, KL {kl:.1e}")
    most, most_kl = LIMITS[role]
    assert error < most
    assert kl < most_kl
    assert error < FACTOR[role] * peers
    top = np.sort(exact.logits.numpy(), axis=-1)
    sure = top[:, -1] - top[:, -2] > 10 * error * exact.logits.std().item()
    winners = [np.asarray(x).argmax(-1)[sure] for x in (actual, exact.logits)]
    assert sure.any()
    np.testing.assert_array_equal(*winners)


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("isa", ISAS)
def test_drafts_are_nearer_than_llama_cpps(recorded, exact_drafts, isa: str, role: Role) -> None:
    ids, hidden = recorded["ids"], recorded["hidden"][:-1]
    runner = Runner(GOLDEN, open_backend(isa))
    actual = runner.one(Piece(0, ids[1:], role=role, hidden=hidden), "draft").logits
    error, peers = (relative_error(x, exact_drafts).total for x in (actual, recorded["drafts"]))
    print(f"{isa} {role.name}: error {error:.2e}, llama.cpp {peers:.2e}")
    assert error < LIMITS[role][0]
    assert error < DRAFT_FACTOR[role] * peers
