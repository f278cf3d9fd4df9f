"""An engine in its own process: the same answers, and faults that touch nobody else."""

import asyncio
import os
import select
import signal
import subprocess
import sys
import textwrap

import pytest

from qwick.engine.process import EngineProcess
from qwick.engine.request import Finish, Request
from qwick.errors import CapacityError, CheckpointError, EngineError, UsageError
from qwick.opening import EngineOptions
from qwick.sampling.params import SamplingParams
from tests.engine.asking import answers, prompt
from tests.engine.faulty_child import HANG, KILL, RAISE, SEGV

CHILD, FAULTY = "qwick.engine_child", "tests.engine.faulty_child"
FAULTS = range(501, 505)
CONTEXT, LONG = 8000, 7900  # tokens; so many take longer than any machine is busy with other things


def options(folder, **more):
    return str(folder), EngineOptions(threads=1, context_len=CONTEXT, **({"max_sequences": 4} | more))


def ask(seed, max_tokens=8, length=5, begin=()):
    """Never a token that means a fault."""
    forbidden = dict.fromkeys(FAULTS, float("-inf"))
    sampling = SamplingParams(seed=seed, max_tokens=max_tokens, logit_bias=forbidden)
    ids = tuple(i for i in prompt(length + 10, seed) if i not in FAULTS)[:length]
    return Request((*begin, *ids), sampling)


async def answer(process, request):
    """All tokens; what the last event said."""
    ticket, ids = process.submit(request), []
    while True:
        for event in await ticket.events():
            ids.append(event.token_id)
            if event.finish:
                return ids, event.finish


def in_process(test, folder, module=FAULTY, hang_seconds=300.0, **more):
    """Run `test(process)` with a started one."""

    async def run():
        process = EngineProcess(module, options(folder, **more), hang_seconds=hang_seconds)
        await process.start()
        try:
            return await test(process)
        finally:
            await process.close()

    return asyncio.run(run())


async def begun(process, requests):
    """Tickets of which each has got a token."""
    tickets = [process.submit(request) for request in requests]
    for ticket in tickets:
        await ticket.events()
    return tickets


async def end(ticket):
    """How it ends: its finish, or its error."""
    try:
        while True:
            events = await ticket.events()
            assert events, "it was over"
            if events[-1].finish:
                return events[-1].finish
    except (EngineError, UsageError) as error:
        return error


def test_answers_are_those_of_an_engine_in_this_process(folder):
    from qwick.model.source import open_source
    from qwick.opening import open_engine

    requests = [ask(seed, max_tokens=3 + seed) for seed in range(7)]
    name, engine_options = options(folder)
    with open_source(folder) as source:
        here = answers(open_engine(name, source, engine_options), requests)

    async def test(process):
        return await asyncio.gather(*(answer(process, request) for request in requests))

    there = in_process(test, folder, CHILD)
    assert [ids for ids, _ in there] == here
    assert {finish for _, finish in there} == {Finish.LENGTH}


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_a_signal_in_the_middle_fails_the_streams_under_way_and_the_next_is_served(folder, number):
    async def test(process):
        tickets = await begun(process, [ask(seed, max_tokens=LONG) for seed in range(3)])
        os.kill(process.pid, number)
        ends = await asyncio.gather(*(end(ticket) for ticket in tickets))
        assert all(isinstance(error, EngineError) for error in ends)
        assert all("memory" if number == signal.SIGKILL else number.name in str(error) for error in ends)
        assert process.num_open == 0
        assert await answer(process, ask(9)) == await answer(process, ask(9))
        assert process.num_starts == 2

    in_process(test, folder)


@pytest.mark.parametrize("fault", [SEGV, KILL])
def test_what_only_waited_is_answered_by_the_next_child(folder, fault):
    """Two run, the fault comes with a third that takes the first free place, the rest never ran."""

    async def test(process):
        short = process.submit(ask(1, max_tokens=5))
        (running,) = await begun(process, [ask(2, max_tokens=LONG)])
        poison = process.submit(ask(3, begin=(fault,)))
        innocent = [process.submit(ask(seed)) for seed in (4, 5, 6)]
        assert await end(short) == Finish.LENGTH
        assert isinstance(await end(running), EngineError)
        assert isinstance(await end(poison), EngineError)
        assert [await end(ticket) for ticket in innocent] == [Finish.LENGTH] * 3
        assert process.num_starts == 3

    in_process(test, folder, max_sequences=2)


def test_an_exception_in_a_step_fails_those_in_it_and_the_child_goes_on(folder):
    async def test(process):
        (running,) = await begun(process, [ask(1, max_tokens=LONG)])
        poison = process.submit(ask(2, begin=(RAISE,)))
        for error in await asyncio.gather(end(running), end(poison)):
            assert isinstance(error, EngineError)
            assert "ValueError: a bug" in str(error)
        await answer(process, ask(3))
        assert process.num_starts == 1

    in_process(test, folder)


def test_a_child_that_hangs_is_ended(folder):
    async def test(process):
        error = await end(process.submit(ask(1, begin=(HANG,))))
        # Nothing was heard of it, so it was asked once more.
        assert isinstance(error, EngineError)
        assert "did not answer" in str(error)
        await answer(process, ask(2))

    in_process(test, folder, hang_seconds=4.0)


def test_refusals_are_the_engine_s(folder):
    async def test(process):
        with pytest.raises(CapacityError, match="the prompt has 8,000 tokens; the context is 8,000"):
            await answer(process, Request(prompt(CONTEXT), SamplingParams()))
        with pytest.raises(UsageError, match="empty"):
            await answer(process, Request((), SamplingParams()))
        await answer(process, ask(1))

    in_process(test, folder)


def test_a_cancelled_request_ends_and_its_place_is_free(folder):
    async def test(process):
        for seed in range(5):
            (ticket,) = await begun(process, [ask(seed, max_tokens=LONG)])
            ticket.cancel()
            ticket.cancel()
            assert process.num_open == 0
        await answer(process, ask(9))

    in_process(test, folder, max_sequences=1)


def test_a_hundred_at_once(folder):
    async def test(process):
        requests = [ask(seed % 10, max_tokens=1 + seed % 10) for seed in range(100)]
        together = await asyncio.gather(*(answer(process, request) for request in requests))
        for first, later in zip(together[:10], together[90:], strict=True):
            assert first == later

    in_process(test, folder)


def test_closing_while_it_runs_ends_what_is_under_way_and_the_child(folder):
    async def test(process):
        pid = process.pid
        tickets = await begun(process, [ask(seed, max_tokens=LONG) for seed in range(2)])
        waiting = process.submit(ask(1))
        await process.close()
        for error in [await end(ticket) for ticket in (*tickets, waiting)]:
            assert isinstance(error, UsageError)
            assert "closed" in str(error)
        with pytest.raises(UsageError, match="closed"):
            process.submit(ask(1))
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)

    in_process(test, folder)


@pytest.mark.parametrize("module", ["qwick.no_such_module", "this"])
def test_a_child_that_cannot_start_is_an_error(folder, module):
    async def run():
        await EngineProcess(module, options(folder)).start()

    with pytest.raises(EngineError, match=r"ended by itself \(exit code \d\) while it opened the model"):
        asyncio.run(run())


def test_a_system_without_processes_for_us_fails_what_is_asked(folder, monkeypatch):
    def refuse(*_, **__):
        raise BlockingIOError(11, "Resource temporarily unavailable")

    async def run():
        await EngineProcess(CHILD, options(folder)).start()

    async def test(process):
        (ticket,) = await begun(process, [ask(1, max_tokens=LONG)])
        with monkeypatch.context() as patched:
            patched.setattr(subprocess, "Popen", refuse)
            os.kill(process.pid, signal.SIGKILL)
            assert isinstance(await end(ticket), EngineError)
            error = await end(process.submit(ask(2)))
            assert "cannot start a process" in str(error)
        await answer(process, ask(2))

    in_process(test, folder)
    monkeypatch.setattr(subprocess, "Popen", refuse)
    with pytest.raises(EngineError, match="cannot start a process"):
        asyncio.run(run())


def test_what_opening_says_comes_back(folder, tmp_path):
    for file in folder.iterdir():
        (tmp_path / file.name).symlink_to(file)
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "model.safetensors").write_bytes(b"\0" * 100)

    def failure(path, **more):
        async def run():
            await EngineProcess(CHILD, options(path, **more)).start()

        with pytest.raises((CheckpointError, UsageError)) as caught:
            asyncio.run(run())
        return caught.value

    assert isinstance(failure(tmp_path), CheckpointError)
    assert "model.safetensors" in str(failure(tmp_path))
    assert "there is no" in str(failure(tmp_path / "nowhere"))


def test_a_model_that_vanished_fails_what_is_asked_and_may_come_back(folder, tmp_path):
    copy = tmp_path / "model"
    copy.symlink_to(folder)

    async def test(process):
        copy.unlink()
        (ticket,) = await begun(process, [ask(1, max_tokens=LONG)])
        os.kill(process.pid, signal.SIGKILL)
        assert isinstance(await end(ticket), EngineError)
        assert isinstance(await end(process.submit(ask(2))), UsageError)
        copy.symlink_to(folder)
        await answer(process, ask(2))

    in_process(test, copy)


def test_loading_is_told(folder):
    told = []

    async def run():
        process = EngineProcess(CHILD, options(folder), progress=lambda done, total: told.append((done, total)))
        ready = await process.start()
        await process.close()
        return ready

    ready = asyncio.run(run())
    assert told[-1][0] == told[-1][1] > 0
    assert ready.config.context_len == CONTEXT
    assert ready.facts["threads"] == 1


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_the_child_ends_with_its_parent(folder, number):
    """Killed, or told to stop in the middle of a long answer."""
    script = f"""
        import asyncio
        from qwick.engine.process import EngineProcess
        from tests.engine.test_process import CHILD, LONG, ask, begun, options

        async def run():
            process = EngineProcess(CHILD, options({str(folder)!r}))
            await process.start()
            print(process.pid, flush=True)
            while True:
                await begun(process, [ask(1, max_tokens=LONG)])

        asyncio.run(run())
    """
    # Tests that run in the background may have been told to ignore SIGINT, and so would their children.
    command = ["env", "--default-signal=INT", sys.executable, "-c", textwrap.dedent(script)]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    child = os.pidfd_open(int(parent.stdout.readline()))
    parent.send_signal(number)
    parent.wait()
    assert select.select([child], [], [], 60)[0], "the child lives on"
    os.close(child)
    parent.stdout.close()


def test_the_child_imports_neither_torch_nor_tokenizers_nor_the_command_line():
    program = "import sys, qwick.engine_child; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    modules = set(done.stdout.split())
    unwanted = {"torch", "tokenizers", "jinja2", "typer", "rich", "qwick.llm", "qwick.cli", "llguidance", "asyncio"}
    assert not modules & unwanted
