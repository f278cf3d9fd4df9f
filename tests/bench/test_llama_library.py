"""The package xllamacpp as a peer: what it is asked, what it answers, and that it really runs where it is installed."""

import json
import math

import pytest

from qwick.bench import llama_library
from qwick.bench.cases import plan_cases
from qwick.bench.llama_library import LlamaLibrary, installed_library, parse_answer
from qwick.bench.peers import open_peers
from qwick.errors import UsageError
from tests.bench.random_model import write_small_random
from tests.parity import llama_cpp

CASES = plan_cases([6], [3], [0, 20], [1, 2], [1])


@pytest.mark.peer
@pytest.mark.skipif(llama_cpp.installed_library() is None, reason="no library of llama.cpp")
def test_it_measures_every_case(tmp_path):
    (peer,) = open_peers(["xllamacpp"], write_small_random(tmp_path / "x.gguf"), batched=True).values()
    rates = peer.measure(CASES)
    assert list(rates) == CASES
    assert all(rate > 0 and math.isfinite(rate) for rate in rates.values())
    assert peer.name.startswith("xllamacpp ")


@pytest.mark.peer
@pytest.mark.skipif(llama_cpp.installed_library() is None, reason="no library of llama.cpp")
def test_a_file_that_it_cannot_read_is_one_error(tmp_path):
    path = tmp_path / "x.gguf"
    path.write_bytes(b"GGUF")
    with pytest.raises(UsageError, match=r"saying 'llama\.cpp cannot load"):
        LlamaLibrary(installed_library(), path).measure(CASES)


def test_what_lies_in_the_current_folder_is_not_run(tmp_path, monkeypatch):
    (tmp_path / "json.py").write_text("raise SystemExit('an intruder')")
    (tmp_path / "qwick.py").write_text("raise SystemExit('an intruder')")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"none\.so"):
        LlamaLibrary(tmp_path / "none.so", tmp_path / "x.gguf").measure(CASES)


def test_another_library_is_refused(tmp_path):
    with pytest.raises(UsageError, match="failed with 1"):
        LlamaLibrary(tmp_path / "none.so", tmp_path / "x.gguf").measure(CASES)


def test_it_is_asked_for_the_same(tmp_path):
    request = LlamaLibrary(tmp_path / "a.so", tmp_path / "x.gguf", "f32").request(CASES[:1])
    case = {"is_prompt": True, "num_tokens": 6, "depth": 0, "batch": 1, "threads": 1}
    assert json.loads(json.dumps(request)) == {
        "library": str(tmp_path / "a.so"),
        "model": str(tmp_path / "x.gguf"),
        "kv_format": "f32",
        "cases": [case],
    }


@pytest.mark.parametrize(
    "output",
    [
        "",
        "[]",
        "{}",
        '{"version": "1", "rates": [1]}',
        '{"version": "1", "rates": [1, 0]}',
        '{"version": "1", "rates": [1, NaN]}',
        '{"version": "1", "rates": [1, null]}',
        '{"version": "1", "rates": 2}',
    ],
)
def test_what_are_no_rates_is_refused(output):
    with pytest.raises(UsageError, match="gave no rates"):
        parse_answer(output, 2)


def test_where_it_is_missing_the_remedy_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(llama_library, "PACKAGE", "no_such_package")
    with pytest.raises(UsageError, match="is not installed; pip install no_such_package"):
        installed_library()
