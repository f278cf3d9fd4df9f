"""The measurement: as many rates as rounds, taken in turns; what is derived from them. How fast is not tested."""

import pytest

from qwick.bench.cases import plan_cases
from qwick.bench.measure import Figure, Measurement
from qwick.bench.op_profile import profile_ops
from qwick.bench.report import report
from qwick.model.model import open_model
from tests.bench.random_model import write_small_random

ROUNDS = 3


class FakePeer:
    name = "fake"

    def __init__(self):
        self.calls = []

    def measure(self, cases):
        self.calls.append(list(cases))
        return {case: 10.0 for case in cases if case.batch == 1}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return open_model(write_small_random(tmp_path_factory.mktemp("bench") / "small.gguf"), threads=1)


@pytest.fixture(scope="module")
def measured(model):
    cases = plan_cases([6], [2], [0, 64], [1, 2], [1])
    peer = FakePeer()
    told = []
    measurement = Measurement(model, cases, peers={"x": peer})
    return measurement, measurement.run(ROUNDS, told.append), peer, told


def test_every_case_has_a_rate_and_a_limit_of_every_round(measured):
    _, figures, _, _ = measured
    for figure in figures:
        for values in (figure.rates, figure.limits, figure.speeds):
            assert len(values) == ROUNDS
            assert min(values) > 0
        assert len(figure.loads) == ROUNDS


def test_a_peer_takes_turns_with_us_and_may_leave_cases_out(measured):
    _, figures, peer, told = measured
    assert [len(f.peer_rates.get("x", ())) for f in figures] == [ROUNDS if f.case.batch == 1 else 0 for f in figures]
    assert len(peer.calls) == 2 * ROUNDS  # one a round and depth
    assert all(len({case.depth for case in call}) == 1 for call in peer.calls)
    turns = [line for line in told if line.startswith("round 1")]
    assert ["fake" in line for line in turns] == [False] * 4 + [True] + [False] * 4 + [True]
    assert ["reads the whole context" in line for line in turns] == [False] * 9 + [True]


def test_figures_are_medians_of_pairs():
    (case,) = plan_cases([0], [1], [0], [1], [1])
    peers = {"slow": [1.0, 1.0, 1.0], "fast": [1.0, 4.0, 5.0], "wild": [9.0, 2.0, 2.0]}
    figure = Figure(case, rates=[1.0, 2.0, 30.0], limits=[2.0, 8.0, 40.0], peer_rates=peers)
    assert figure.rate == 2.0
    assert figure.limit == 8.0
    assert figure.share == 0.5
    assert figure.best_peer == "fast"
    assert [figure.ratio(peer) for peer in peers] == [2.0, 0.5, 1.0]
    assert figure.ratios("fast") == [1.0, 0.5, 6.0]
    assert Figure(case, rates=[1.0]).best_peer is None


def test_the_limit_is_the_stream_over_the_bytes_of_a_token(measured):
    measurement, figures, _, _ = measured
    for figure in figures:
        case, cost = figure.case, measurement.cost
        needed = cost.prompt_madds if case.is_prompt else cost.decode_bytes(case) / case.batch
        assert figure.limits == pytest.approx([speed / needed for speed in figure.speeds])


def test_a_profile_has_every_op_and_adds_up(model, measured):
    measurement, figures, _, _ = measured
    program = model.program("forward")
    for figure in figures:
        rows = profile_ops(program, measurement.sequences, figure.case, measurement.cost)
        assert sum(row.count for row in rows) == len(program.ops)
        assert [row.seconds for row in rows] == sorted((row.seconds for row in rows), reverse=True)
        assert 0 < sum(row.seconds for row in rows) < 60
        read = sum(row.num_bytes for row in rows)
        if figure.case.is_prompt:
            assert read == pytest.approx(measurement.cost.weight_bytes, rel=0.03)  # vectors are not in it
        else:
            assert read == pytest.approx(measurement.cost.decode_bytes(figure.case), rel=0.03)  # vectors are not in it
    kinds = {row.kind for row in rows}
    assert {"linear in_proj_qkv", "gate_up gate_proj", "linear_add down_proj", "head embed_tokens"} <= kinds
    assert program.op_seconds == []  # off again


def test_the_report_has_everything(model, measured):
    measurement, figures, peer, _ = measured
    rows = profile_ops(model.program("forward"), measurement.sequences, figures[0].case, measurement.cost)
    found = report({"isa": "x"}, {"path": "y"}, figures, {"x": peer.name}, {"pp6": rows})
    assert [row["test"] for row in found["results"]] == [figure.case.name for figure in figures]
    for row in found["results"]:
        assert row["min"] <= row["median"] <= row["max"]
        assert (row["best_peer"] is None) == (row["batch"] > 1)
        assert row["limit"]["of"] == ("matrix product" if row["kind"] == "prompt" else "read stream")
    assert {"kind", "count", "seconds", "num_bytes", "bytes_per_second"} <= found["ops"]["pp6"][0].keys()
