"""The pool: every item once, on a thread of the run, whatever the thread count was before; fork and exit are safe."""

import os
import subprocess
import sys

import pytest

from qwick import _kernels
from qwick.errors import KernelError


@pytest.mark.parametrize("threads", [[1], [2], [3], [8], [1, 4, 2, 7, 1, 3]])
def test_every_item_runs_once_and_denormals_are_flushed(threads):
    assert _kernels.stress_pool(threads, jobs=400, items=37) == (0, 0)


def test_more_threads_than_cores_finish():
    assert _kernels.stress_pool([32], jobs=50, items=200) == (0, 0)


@pytest.mark.parametrize("threads", [0, -1, 1025])
def test_impossible_thread_counts_are_refused(threads):
    with pytest.raises(KernelError, match="1 to 1024"):
        _kernels.Runtime("", threads, 1, 0)
    runtime = _kernels.Runtime("", 1, 2, 0)
    with pytest.raises(KernelError):
        runtime.set_threads(2, threads)
    assert (runtime.threads, runtime.threads_batch) == (1, 2)


def test_the_default_count_respects_the_affinity():
    count, reason = _kernels.default_thread_count()
    assert 1 <= count <= len(os.sched_getaffinity(0))
    assert "core" in reason
    assert count <= _kernels.most_thread_count() <= len(os.sched_getaffinity(0))
    one = min(os.sched_getaffinity(0))
    code = (
        f"import os; os.sched_setaffinity(0, [{one}]); from qwick import _kernels as k; print(k.default_thread_count())"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.startswith("(1, ")


LIVE_RUNTIME = """
import os, sys
import numpy as np
from qwick import _kernels
runtime = _kernels.Runtime("", 3, 3, 0)
rows = np.ones((4096, 64), np.float32)
runtime.add_matrix("before", 4096, 64, "i8").write(0, rows, runtime)
"""


def run_script(script):
    # The interpreter's own flags (PYTHONPATH, a sanitizer's preload) come from the environment.
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)


def test_a_process_may_exit_with_live_workers():
    done = run_script(LIVE_RUNTIME + "import builtins; builtins.kept = runtime")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_forked_child_gets_workers_of_its_own():
    script = LIVE_RUNTIME + (
        "if pid := os.fork():\n"
        "    sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))\n"
        "after = runtime.add_matrix('after', 4096, 64, 'i8')\n"
        "after.write(0, rows, runtime)\n"
        "os._exit(0 if after.complete and (abs(after.decode_rows(0, 4096) - 1) < 1e-3).all() else 1)\n"
    )
    done = run_script(script)
    assert done.returncode == 0, done.stderr


def test_what_a_section_costs_is_told_for_each():
    costs = _kernels.section_costs(2, 50)
    assert len(costs) == 50
    with pytest.raises(KernelError, match="1 to 1024"):
        _kernels.section_costs(0, 1)
