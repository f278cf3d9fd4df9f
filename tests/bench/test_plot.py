"""A plot is a PNG with every case and name on it; without matplotlib the error says how to get it."""

import pytest

from qwick.bench import plot
from qwick.bench.cases import plan_cases
from qwick.bench.measure import Figure
from qwick.bench.plot import check_plot, save_plot
from qwick.errors import UsageError


def figures(with_peer):
    found = []
    for i, case in enumerate(plan_cases([512], [64], [0, 4096], [1], [2]), 1):
        peer = {"x": [0.5 * i, 0.6 * i]} if with_peer else {}
        found.append(Figure(case, rates=[1.0 * i, 3.0 * i], limits=[4.0 * i, 4.0 * i], peer_rates=peer))
    return found


@pytest.mark.parametrize("with_peer", [False, True])
@pytest.mark.parametrize("kept", [slice(None), slice(0, 1), slice(1, 2)])
def test_it_is_a_png(tmp_path, with_peer, kept):
    pytest.importorskip("matplotlib")
    path = tmp_path / "x.PNG"
    check_plot(path)
    save_plot(path, "title", figures(with_peer)[kept], "peer")
    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_every_case_and_the_peer_are_on_it(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    drawn = []
    draw = plot._draw

    def spy(axis, panel, peer):
        draw(axis, panel, peer)
        drawn.append(axis)

    monkeypatch.setattr(plot, "_draw", spy)
    save_plot(tmp_path / "x.png", "title", figures(with_peer=True), "peer x")
    names = [label.get_text() for axis in drawn for label in axis.get_yticklabels()]
    assert names == ["pp512", "pp512 @ d4096", "tg64", "tg64 @ d4096"]
    for axis in drawn:
        legend = {text.get_text() for text in axis.get_legend().get_texts()}
        assert legend == {"qwick", "peer x", "limit of this machine"}


def test_a_peer_that_stands_not_beside_the_first_case_is_named(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    legends = []
    draw = plot._draw

    def spy(axis, panel, peer):
        draw(axis, panel, peer)
        legends.append({text.get_text() for text in axis.get_legend().get_texts()})

    monkeypatch.setattr(plot, "_draw", spy)
    mixed = figures(with_peer=False)[:2] + figures(with_peer=True)[2:]  # by depth
    save_plot(tmp_path / "x.png", "title", mixed, "peer x")
    assert legends == [{"qwick", "peer x", "limit of this machine"}] * 2


def test_a_name_with_dollars_is_no_formula(tmp_path):
    pytest.importorskip("matplotlib")
    save_plot(tmp_path / "x.png", r"a$\no$b.gguf", figures(with_peer=True), r"peer $\no$")
    assert (tmp_path / "x.png").exists()


def test_a_folder_that_cannot_be_written_is_told_before(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(plot.os, "access", lambda path, mode: path != tmp_path)  # root may write anywhere
    with pytest.raises(UsageError, match="no permission"):
        check_plot(tmp_path / "x.png")


def test_without_matplotlib_the_remedy_is_named(tmp_path, monkeypatch):
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(plot, "import_module", missing)
    with pytest.raises(UsageError, match=r"pip install 'qwick\[plot\]'"):
        check_plot(tmp_path / "x.png")


@pytest.mark.parametrize("name", ["x.pdf", "x", "no/x.png"])
def test_names_that_cannot_be_are_refused(tmp_path, name):
    with pytest.raises(UsageError, match=r"\.png|cannot be written"):
        check_plot(tmp_path / name)
