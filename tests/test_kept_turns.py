"""A chat with kept state: each turn reads what is new, and answers as if it had read everything."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from qwick.errors import UsageError
from qwick.llm import LLM
from qwick.streams import Completion
from tests.small_model import write_small_model

TEMPLATES = Path(__file__).parent / "text" / "templates"
OFFICIAL = [path.stem for path in sorted(TEMPLATES.glob("*.jinja"))]
OPTIONS: Any = {"temperature": 0, "max_tokens": 9}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_model(tmp_path_factory.mktemp("model"))


def with_template(folder: Path, target: Path, source: str) -> Path:
    for file in folder.iterdir():
        (target / file.name).symlink_to(file)
    (target / "chat_template.jinja").write_text(source)
    return target


@pytest.fixture(scope="module", params=OFFICIAL)
def official(folder: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    source = (TEMPLATES / f"{request.param}.jinja").read_text()
    return with_template(folder, tmp_path_factory.mktemp("official"), source)


@pytest.fixture
def llm(folder: Path) -> Iterator[LLM]:
    with LLM(folder, cache_memory=1 << 20, threads=1) as opened:
        yield opened


def content(completion: Completion) -> tuple[str, str, tuple[int, ...], str]:
    """Everything but counts and seconds."""
    return completion.text, completion.reasoning, completion.token_ids, completion.finish_reason


def talk(llm: LLM, questions: list[str], **options: Any) -> list[Completion]:
    messages: list[dict[str, str]] = []
    answers: list[Completion] = []
    for question in questions:
        messages.append({"role": "user", "content": question})
        answers.append(llm.chat(messages, **OPTIONS, **options))
        messages.append({"role": "assistant", "content": answers[-1].text})
    return answers


@pytest.mark.parametrize("think", [False, True])
def test_a_turn_reads_the_last_answer_and_its_own_question(official: Path, think: bool) -> None:
    questions = ["hello " * 20, "what is ab?", "and <|im_end|>?"]
    with LLM(official, cache_memory=1 << 20, threads=1) as llm:
        kept = talk(llm, questions, think=think)
    with LLM(official, threads=1) as llm:
        fresh = talk(llm, questions, think=think)
        block = len(llm.tokenizer.encode("<think>\n" if think else "<think>\n\n</think>\n\n", allow_special=True))
    assert list(map(content, kept)) == list(map(content, fresh))
    assert [c.stats.prompt_tokens for c in kept] == [c.stats.prompt_tokens for c in fresh]
    assert [c.stats.cached_tokens for c in fresh] == [0, 0, 0]
    assert [c.stats.cached_tokens for c in kept] == [0, *(c.stats.prompt_tokens - block for c in kept[:-1])]


def test_turning_thinking_on_rereads_nothing_but_the_think_block(official: Path) -> None:
    messages = [{"role": "user", "content": "hello " * 20}]
    with LLM(official, cache_memory=1 << 20, threads=1) as llm:
        first = llm.chat(messages, think=False, **OPTIONS)
        again = llm.chat(messages, think=True, **OPTIONS)
    assert first.stats.prompt_tokens - again.stats.cached_tokens <= 6
    assert again.reasoning


@pytest.mark.parametrize(
    "source",
    [
        "{{ messages[-1].content }}{{ raise_exception('too many') if messages | length > 1 }}",
        "{{ messages | length }}{{ messages[0].content }}",
    ],
)
def test_a_template_without_a_next_turn_is_read_anew(folder: Path, tmp_path: Path, source: str) -> None:
    with LLM(with_template(folder, tmp_path, source), cache_memory=1 << 20, threads=1) as llm:
        for question in ("one hello", "two hello"):
            completion = llm.chat([{"role": "user", "content": question}], **OPTIONS)
            assert completion.stats.cached_tokens <= 1
            assert completion.stats.generated_tokens > 0


def test_a_raw_prompt_goes_on_from_the_end_of_another(llm: LLM) -> None:
    first = llm.generate("hello " * 10, **OPTIONS)
    prompt = llm.tokenizer.encode("hello " * 10, allow_special=True)
    assert llm.generate([*prompt, *first.token_ids, 5], **OPTIONS).stats.cached_tokens == len(prompt)


@pytest.mark.parametrize("think", [False, True])
def test_after_idle_time_a_turn_reads_its_own_question_only(official: Path, think: bool) -> None:
    questions = ["hello " * 20, "what is ab?", "and <|im_end|>?"]
    with LLM(official, threads=1) as llm:
        fresh = talk(llm, questions, think=think)
    messages: list[dict[str, str]] = []
    with LLM(official, cache_memory=1 << 20, threads=1) as llm:
        for turn, question in enumerate(questions):
            messages.append({"role": "user", "content": question})
            answer = llm.chat(messages, think=think, **OPTIONS)
            assert content(answer) == content(fresh[turn])
            if turn:
                block = "<think>\n" if think else "<think>\n\n</think>\n\n"
                frame = "<|im_start|>user\n<|im_end|>\n<|im_start|>assistant\n" + block
                own = len(llm.tokenizer.encode(frame, allow_special=True))
                own += len(llm.tokenizer.encode(question, allow_special=False))
                assert (
                    answer.stats.prompt_tokens - answer.stats.cached_tokens <= own + 2
                )  # words join differently in this vocabulary of bytes
                assert answer.stats.miss is None
            messages.append({"role": "assistant", "content": answer.text})
            llm.remember(messages, think=think)
            while llm.idle():
                pass


def test_an_agent_s_history_grows_by_calls_and_results(official: Path) -> None:
    """Each round reads what is new since the last prompt; after idle time only the tool's result."""
    call = {"type": "function", "function": {"name": "look_up", "arguments": {"word": "ab " * 10}}}
    with LLM(official, cache_memory=1 << 20, threads=1) as llm:
        for idle in (False, True):
            messages: list[dict[str, Any]] = [{"role": "user", "content": "hello " * 20 + str(idle)}]
            before = llm.chat(messages, think=False, **OPTIONS).stats.prompt_tokens
            for round_ in range(3):
                messages.append({"role": "assistant", "content": "", "tool_calls": [call]})
                if idle:
                    llm.remember(messages, think=False)
                    while llm.idle():
                        pass
                messages.append({"role": "tool", "content": f"ab is {round_} " * 5})
                stats = llm.chat(messages, think=False, **OPTIONS).stats
                new = stats.prompt_tokens - before
                before = stats.prompt_tokens
                assert stats.prompt_tokens - stats.cached_tokens <= (0.6 * new if idle else new + 24)


def test_a_question_finds_what_was_read_of_the_answer_so_far(official: Path) -> None:
    """Idle time that was too short is not lost."""
    messages = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "ab cd " * 300}]
    with LLM(official, cache_memory=1 << 20, threads=1) as llm:
        llm.remember(messages)
        assert llm.idle()
        llm.chat([{"role": "user", "content": "something else"}], **OPTIONS)
        assert llm.idle()  # goes on where it was
        answer = llm.chat([*messages, {"role": "user", "content": "and?"}], **OPTIONS)
        assert 8 <= answer.stats.cached_tokens < answer.stats.prompt_tokens


def test_a_stopped_answer_is_what_there_was(llm: LLM) -> None:
    whole = llm.chat([{"role": "user", "content": "hello"}], temperature=0, max_tokens=40)
    stream = llm.chat([{"role": "user", "content": "hello"}], stream=True, temperature=0, max_tokens=40)
    text = next(stream)
    stream.stop()
    text += "".join(stream)
    completion = stream.completion
    assert completion.finish_reason == "cancelled"
    assert completion.text == text
    assert 0 < len(completion.token_ids) < len(whole.token_ids)
    assert completion.token_ids == whole.token_ids[: len(completion.token_ids)]
    assert completion.stats.generated_tokens == len(completion.token_ids)


def test_stopping_before_the_first_token_costs_nothing(llm: LLM) -> None:
    stream = llm.chat([{"role": "user", "content": "hello"}], stream=True)
    stream.stop()
    assert list(stream) == []
    assert (stream.completion.text, stream.completion.finish_reason) == ("", "cancelled")
    assert stream.completion.stats.generated_tokens == 0
    stream.stop()
    assert llm.generate("hello", **OPTIONS).stats.generated_tokens > 0


def test_an_interrupted_step_closes_the_streams_and_the_next_answers(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = llm.generate("hello", **OPTIONS)
    streams = [llm.stream("hello") for _ in range(2)]
    engine: Any = llm._streams._engine

    def interrupted() -> list[Any]:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(engine, "step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            next(streams[0])
    for stream in streams:
        with pytest.raises(UsageError, match="closed"):
            next(stream)
    assert content(llm.generate("hello", **OPTIONS)) == content(expected)
