"""Many callers of one model in another process: the same answers as LLM's, and nobody in anybody's way."""

import asyncio
import gc
import os
import signal
import weakref
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from qwick import AsyncLLM
from qwick.async_stream import AsyncStream
from qwick.errors import CapacityError, CheckpointError, EngineError, QwickError, TemplateError, UsageError
from qwick.llm import LLM
from qwick.opening import EngineOptions
from qwick.streams import Completion
from qwick.text.segments import Kind
from qwick.text.tokenizer import Tokenizer
from qwick.text.vocabulary import WholeVocabulary
from tests.small_model import LONGEST, write_small_model
from tests.text.tokenizer_folder import make_backend

USER = [{"role": "user", "content": "hello"}]
OPTIONS = EngineOptions(threads=1, max_sequences=4, context_len=LONGEST)
STOPS = Tokenizer(WholeVocabulary(make_backend())).stop_ids
LONG: Any = {"max_tokens": 8000, "seed": 1, "logit_bias": dict.fromkeys(STOPS, float("-inf"))}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_model(tmp_path_factory.mktemp("model"))


def with_llm(folder: Path, test: Callable[[AsyncLLM], Awaitable[Any]], options: EngineOptions = OPTIONS) -> Any:
    async def run() -> Any:
        async with AsyncLLM(folder, options) as llm:
            return await test(llm)

    return asyncio.run(run())


def content(completion: Completion) -> tuple[str, str, tuple[int, ...], str]:
    """Everything but counts and seconds."""
    return completion.text, completion.reasoning, completion.token_ids, completion.finish_reason


async def until_idle(llm: AsyncLLM) -> None:
    """Requests that nobody wants are cancelled in turns of the loop to come."""
    while llm.process.num_open:
        await asyncio.sleep(0)


def test_answers_are_those_of_llm(folder: Path) -> None:
    options: Any = {"max_tokens": 12, "seed": 5}
    with LLM(folder, threads=1) as llm:
        here = [
            llm.generate("hello", **options),
            llm.generate([5, 6, 7], stop="a", **options),
            llm.chat([{"role": "system", "content": "x"}, *USER], **options),
            llm.chat(USER, stop=["e", "o"], **options),
        ]

    async def test(llm: AsyncLLM) -> list[Completion]:
        streams = [
            llm.generate("hello", **options),
            llm.generate([5, 6, 7], stop="a", **options),
            llm.chat([{"role": "system", "content": "x"}, *USER], **options),
            llm.chat(USER, stop=["e", "o"], **options),
        ]
        return await asyncio.gather(*(stream.completion() for stream in streams))

    assert [content(c) for c in with_llm(folder, test)] == [content(c) for c in here]


def test_the_pieces_are_the_text(folder: Path) -> None:
    async def test(llm: AsyncLLM) -> None:
        stream = llm.chat(USER, max_tokens=30, seed=1)
        pieces = [piece async for piece in stream]
        assert "".join(pieces) == (await stream.completion()).text
        again = llm.chat(USER, max_tokens=30, seed=1)
        segments = [segment async for segment in again.segments()]
        assert "".join(text for kind, text in segments if kind is Kind.CONTENT) == "".join(pieces)

    with_llm(folder, test)


def test_a_hundred_callers_get_what_they_would_get_alone(folder: Path) -> None:
    async def test(llm: AsyncLLM) -> None:
        async def answer(i: int) -> tuple[Any, ...]:
            return content(await llm.generate(f"number {i}", max_tokens=1 + i % 7, seed=i).completion())

        together = await asyncio.gather(*map(answer, range(100)))
        assert [await answer(i) for i in range(0, 100, 9)] == list(together)[::9]

    with_llm(folder, test)


def test_cancelling_the_task_ends_the_request(folder: Path) -> None:
    async def test(llm: AsyncLLM) -> None:
        for _ in range(3):
            started = asyncio.Event()

            async def consume(started: asyncio.Event = started) -> None:
                async for _ in llm.generate("hello", **LONG).segments():
                    started.set()

            task = asyncio.create_task(consume())
            await started.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await until_idle(llm)
        await llm.generate("hello", max_tokens=3).completion()

    with_llm(folder, test, EngineOptions(threads=1, context_len=LONGEST))


def test_cancelling_before_anything_was_asked_is_fine(folder: Path) -> None:
    async def test(llm: AsyncLLM) -> None:
        task = asyncio.ensure_future(llm.generate("hello", **LONG).completion())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until_idle(llm)

    with_llm(folder, test)


def test_a_dropped_or_closed_stream_ends(folder: Path) -> None:
    async def first_piece(stream: AsyncStream) -> None:
        async for _ in stream:
            break

    async def test(llm: AsyncLLM) -> None:
        await first_piece(llm.generate("hello", **LONG))
        gc.collect()
        await until_idle(llm)
        stream = llm.generate("hello", **LONG)
        await first_piece(stream)
        stream.close()
        assert llm.process.num_open == 0
        with pytest.raises(UsageError, match="closed"):
            await stream.completion()

    with_llm(folder, test)


def test_nothing_of_a_request_stays_however_it_ended(folder: Path) -> None:
    async def completion(stream: AsyncStream) -> None:
        with suppress(QwickError):
            await stream.completion()

    async def test(llm: AsyncLLM) -> None:
        def streams() -> list[AsyncStream]:
            wrong, long = [10**6], "a" * 9000
            return [llm.generate(prompt, max_tokens=3) for prompt in ("hello", wrong, long)] + [llm.chat([{}])]

        asked = streams()
        for stream in asked:
            await completion(stream)
        stopped = llm.generate("hello", **LONG)
        await anext(stopped)
        await stopped.stop()
        left = [weakref.ref(stream) for stream in (*asked, stopped)]
        del asked, stopped, stream
        gc.collect()
        await until_idle(llm)
        assert [ref() for ref in left] == [None] * len(left)

    with_llm(folder, test)


def test_stop_keeps_what_there_is(folder: Path) -> None:
    async def test(llm: AsyncLLM) -> None:
        stream = llm.generate("hello", **LONG)
        await anext(stream)
        completion = await stream.stop()
        assert completion.finish_reason == "cancelled"
        assert completion.token_ids
        assert await stream.stop() is completion
        await until_idle(llm)

    with_llm(folder, test)


def test_kill_in_the_middle_of_many_streams(folder: Path) -> None:
    async def test(llm: AsyncLLM) -> None:
        running = [asyncio.ensure_future(llm.generate("hello", **LONG).completion()) for _ in range(4)]
        await llm.generate("x", max_tokens=2).completion()  # comes after them
        assert llm.process.pid
        os.kill(llm.process.pid, signal.SIGKILL)
        for result in await asyncio.gather(*running, return_exceptions=True):
            assert isinstance(result, EngineError)
        completion = await llm.generate("hello", max_tokens=5).completion()
        assert len(completion.token_ids) <= 5
        assert llm.process.num_starts == 2

    with_llm(folder, test, EngineOptions(threads=1, max_sequences=5, context_len=LONGEST))


def test_what_is_wrong_with_a_question_is_said_to_its_asker(folder: Path) -> None:
    async def test(llm: AsyncLLM) -> None:
        for error, stream in (
            (UsageError, llm.generate("hello", temperature=-1)),
            (UsageError, llm.generate("hello", stop="")),
            (UsageError, llm.generate([], max_tokens=1)),
            (UsageError, llm.generate([10**6], max_tokens=1)),
            (CapacityError, llm.generate("a" * 9000, max_tokens=1)),
            (TemplateError, llm.chat([{"role": "nobody"}])),
        ):
            with pytest.raises(error):
                await stream.completion()
        await llm.generate("hello", max_tokens=1).completion()

    with_llm(folder, test)


@pytest.mark.parametrize("broken", ["model.safetensors", "tokenizer.json", "config.json", ""])
def test_a_model_that_cannot_be_opened_is_said_as_llm_says_it(folder: Path, tmp_path: Path, broken: str) -> None:
    for file in folder.iterdir():
        (tmp_path / file.name).symlink_to(file)
    if broken:
        (tmp_path / broken).unlink()
        (tmp_path / broken).write_bytes(b"{")
    path = tmp_path if broken else tmp_path / "nowhere"
    with pytest.raises(QwickError) as here:
        LLM(path)

    async def test(_: AsyncLLM) -> None:
        raise AssertionError

    with pytest.raises(QwickError) as there:
        with_llm(path, test)
    assert (type(there.value), str(there.value)) == (type(here.value), str(here.value))
    assert type(there.value) in {CheckpointError, UsageError}


def test_closing_fails_what_is_under_way_and_closes_for_good(folder: Path) -> None:
    async def run() -> None:
        llm = AsyncLLM(folder, OPTIONS)
        with pytest.raises(UsageError, match="not open"):
            llm.generate("hello")
        await llm.start()
        pid = llm.process.pid
        stream = llm.generate("hello", **LONG)
        unasked = llm.generate("hello")
        await anext(stream)
        await llm.close()
        await llm.close()
        for left in (stream, unasked):
            with pytest.raises(UsageError):
                await left.completion()
        assert pid
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)

    asyncio.run(run())


def test_log_probabilities(folder: Path) -> None:
    options: Any = {"max_tokens": 6, "seed": 3}

    async def test(llm: AsyncLLM) -> None:
        plain = await llm.generate("hello", **options).completion()
        asked = await llm.generate("hello", logprobs=3, prompt_logprobs_from=1, **options).completion()
        assert content(asked) == content(plain)
        assert plain.scored == plain.prompt_scored == ()
        assert len(asked.scored) == len(asked.token_ids)
        assert len(asked.prompt_scored) == asked.stats.prompt_tokens - 1
        for logprob, top in (*asked.scored, *asked.prompt_scored):
            assert len(top) == 3
            assert logprob <= top[0][1] <= 0
        chatted = await llm.chat(USER, logprobs=0, **options).completion()
        assert len(chatted.scored) == len(chatted.token_ids)

    with_llm(folder, test)


def test_choices_score_as_the_prompt_s_own_tokens(folder: Path) -> None:
    async def test(llm: AsyncLLM) -> None:
        choices = ["abc", "b", "hello"]
        scores = await llm.score(choices, "xyz")
        assert [choice.text for choice in scores.choices] == choices
        for choice in scores.choices:
            whole = await llm.generate(f"xyz{choice.text}", max_tokens=1, prompt_logprobs_from=3).completion()
            assert choice.token_logprobs == tuple(logprob for logprob, _ in whole.prompt_scored)
        assert scores.best.logprob == max(choice.logprob for choice in scores.choices)
        for wrong in ([], ["a", ""]):
            with pytest.raises(UsageError, match="nothing to score"):
                await llm.score(wrong, "xyz")

    with_llm(folder, test)


def test_a_chat_that_is_remembered_is_read_at_leisure(folder: Path) -> None:
    async def test(llm: AsyncLLM) -> None:
        messages = [{"role": "user", "content": "hello " * 30}]
        answer = await llm.chat(messages, max_tokens=5, temperature=0).completion()
        messages.append({"role": "assistant", "content": answer.text})
        llm.remember(messages)
        while not llm.process.counted.instruments.get("idle_tokens"):
            await asyncio.sleep(0.01)
        messages.append({"role": "user", "content": "and?"})
        again = await llm.chat(messages, max_tokens=5, temperature=0).completion()
        assert again.stats.cached_tokens > 30
        levels = llm.process.counted.levels
        assert levels["pages"] > 0

    with_llm(folder, test, EngineOptions(threads=1, cache_memory=64 << 20))
