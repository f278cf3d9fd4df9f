"""A batch's output survives whatever ends its process: nothing is lost, nothing is there twice."""

import hashlib
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwick.batch.journal import Journal
from qwick.batch.lines import MAX_LINE_BYTES
from qwick.batch.source import Source
from qwick.errors import UsageError

ASKED = {"--model": "pocket", "--stop": ("a", "b"), "sampling": {"logit_bias": {"5": float("-inf")}}}


def answer(raw: bytes) -> bytes:
    return b"answer to " + raw + b"\n"


def go_on(folder: Path, windows: Sequence[int] = (), *, finish: bool = True) -> int:
    """Answer what is left, in windows of these sizes and then all at once; how many lines were done before."""
    source = Source(folder / "in")
    with Journal(folder / "out", source, ASKED) as journal:
        done = journal.lines_done
        left = list(source.lines(done))
        for size in windows:
            journal.append([(raw, answer(raw)) for raw in left[:size]])
            left = left[size:]
        if finish:
            journal.append([(raw, answer(raw)) for raw in left])
            journal.finish()
    return done


def write_input(folder: Path, lines: Sequence[bytes]) -> bytes:
    """What the output is to be."""
    (folder / "in").write_bytes(b"\n".join(lines))
    return b"".join(answer(line) for line in lines if line.strip())


LINES = st.lists(st.binary(max_size=8).map(lambda data: data.translate(None, b"\r\n")), max_size=9)


@given(LINES, st.lists(st.integers(0, 4), max_size=4))
def test_windows_make_no_difference(lines: list[bytes], windows: list[int]) -> None:
    with TemporaryDirectory() as name:
        wanted = write_input(Path(name), lines)
        go_on(Path(name), windows)
        assert (Path(name) / "out").read_bytes() == wanted
        assert sorted(path.name for path in Path(name).iterdir()) == ["in", "out"]


@given(LINES, st.lists(st.integers(0, 4), max_size=3), st.data())
def test_an_output_cut_at_any_byte_is_completed(lines: list[bytes], windows: list[int], data: st.DataObject) -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        wanted = write_input(folder, lines)
        go_on(folder, windows, finish=False)
        size = (folder / "out").stat().st_size
        os.truncate(folder / "out", data.draw(st.integers(0, size)))
        done = go_on(folder)
        assert (folder / "out").read_bytes() == wanted
        assert done <= sum(windows)


@given(LINES, st.integers(0, 4), st.binary(max_size=40))
def test_what_nobody_vouches_for_is_cut(lines: list[bytes], window: int, torn: bytes) -> None:
    """A window was partly written, not told as done."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        wanted = write_input(folder, lines)
        go_on(folder, [window], finish=False)
        with (folder / "out").open("ab") as file:
            file.write(torn)
        go_on(folder)
        assert (folder / "out").read_bytes() == wanted


def test_blank_lines_line_ends_and_lines_too_long(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"\n  \na\r\n" + b"x" * (2 * MAX_LINE_BYTES + 10) + b"\n\nb")
    source = Source(tmp_path / "in")
    lines = list(source.lines(0))
    assert source.num_lines == 3
    assert (lines[0], lines[2]) == (b"a", b"b")
    assert len(lines[1]) > MAX_LINE_BYTES
    assert list(source.lines(2)) == [b"b"]


def test_an_input_that_grew_is_answered_to_its_end(tmp_path: Path) -> None:
    write_input(tmp_path, [b"a", b"b"])
    go_on(tmp_path, [2], finish=False)
    wanted = write_input(tmp_path, [b"a", b"b", b"c"])
    assert go_on(tmp_path) == 2
    assert (tmp_path / "out").read_bytes() == wanted


def test_an_input_that_changed_is_an_error(tmp_path: Path) -> None:
    write_input(tmp_path, [b"a", b"b"])
    go_on(tmp_path, [1], finish=False)
    for lines in ([b"x", b"b"], [b"ab"], []):
        write_input(tmp_path, lines)
        with pytest.raises(UsageError, match="have changed"):
            go_on(tmp_path)
    write_input(tmp_path, [b"a", b"other"])  # not answered yet
    assert go_on(tmp_path) == 1


def test_other_options_are_an_error(tmp_path: Path) -> None:
    write_input(tmp_path, [b"a", b"b"])
    go_on(tmp_path, [1], finish=False)
    with pytest.raises(UsageError, match="begun with --model = 'pocket', now it is 'other'"):
        Journal(tmp_path / "out", Source(tmp_path / "in"), {**ASKED, "--model": "other"})
    go_on(tmp_path)


def test_a_file_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    write_input(tmp_path, [b"a"])
    (tmp_path / "out").write_bytes(b"precious")
    with pytest.raises(UsageError, match="exists and is no unfinished batch"):
        go_on(tmp_path)
    assert (tmp_path / "out").read_bytes() == b"precious"


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"version": 1}', b"[" * 70_000, b"null"])
def test_a_damaged_progress_is_an_error(tmp_path: Path, damage: bytes) -> None:
    write_input(tmp_path, [b"a"])
    go_on(tmp_path, [1], finish=False)
    (tmp_path / "out.progress").write_bytes(damage)
    with pytest.raises(UsageError, match="damaged"):
        go_on(tmp_path)


def test_two_at_a_time_are_refused(tmp_path: Path) -> None:
    write_input(tmp_path, [b"a"])
    source = Source(tmp_path / "in")
    with Journal(tmp_path / "out", source, ASKED), pytest.raises(UsageError, match="another process"):
        Journal(tmp_path / "out", source, ASKED)


def test_unreadable_files_are_errors(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read"):
        Source(tmp_path / "nothing")
    with pytest.raises(UsageError, match="cannot read"):
        Source(tmp_path)
    write_input(tmp_path, [b"a"])
    with pytest.raises(UsageError, match="cannot write"):
        Journal(tmp_path / "no" / "out", Source(tmp_path / "in"), ASKED)


def test_killed_at_any_point_it_goes_on(tmp_path: Path) -> None:
    """A process that writes window after window is killed again and again, wherever it happens to be."""
    lines = [hashlib.sha256(bytes([i % 256, i // 256])).hexdigest().encode() * (1 + i % 5) for i in range(600)]
    wanted = write_input(tmp_path, lines)
    program = """
        import sys
        from pathlib import Path
        from tests.batch.test_journal import go_on
        print(flush=True)
        go_on(Path(sys.argv[1]), [3] * 1000)
    """
    command = [sys.executable, "-c", textwrap.dedent(program), str(tmp_path)]
    kills, done = 0, 0
    while (tmp_path / "out.progress").exists() or not (tmp_path / "out").exists():
        process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert process.stdout
        process.stdout.readline()
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.02 * (1 + kills % 7))
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        kills += 1
        size = (tmp_path / "out").stat().st_size if (tmp_path / "out").exists() else 0
        assert size >= done or kills == 0
        if kills > 12:
            go_on(tmp_path)
    assert (tmp_path / "out").read_bytes() == wanted
