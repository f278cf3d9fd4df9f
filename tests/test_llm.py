"""Text in, text out: streams, stops, templates, defaults, and what it refuses."""

import gc
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from qwick import opening
from qwick.engine.config import EngineConfig
from qwick.engine.request import Event, Finish, Request, Stats
from qwick.errors import CapacityError, CheckpointError, QwickError, UsageError
from qwick.llm import LLM
from qwick.store import find_model
from qwick.streams import Completion, Stream
from qwick.text.segments import Kind
from qwick.text.tokenizer import Tokenizer
from qwick.text.vocabulary import WholeVocabulary
from tests.checkpoints import small_config
from tests.gguf_model import add_tokenizer, write_gguf
from tests.small_model import write_small_model
from tests.text.tokenizer_folder import make_backend

USER = [{"role": "user", "content": "hello"}]
TOKENIZER = Tokenizer(WholeVocabulary(make_backend()))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def llm(folder: Path) -> Iterator[LLM]:
    with LLM(folder, max_sequences=2, threads=1) as opened:
        yield opened


class ScriptedEngine:
    """Answers every request with `script`, one id a step."""

    script: tuple[int, ...] = ()

    def __init__(self, model: object, config: EngineConfig) -> None:
        self.running: dict[int, tuple[Request, list[int]]] = {}
        self.requests: list[Request] = []

    def add(self, request: Request) -> int:
        self.requests.append(request)
        self.running[len(self.requests)] = (request, list(self.script))
        return len(self.requests)

    def cancel(self, sequence_id: int) -> None:
        self.running.pop(sequence_id, None)

    def step(self) -> list[Event]:
        events: list[Event] = []
        for sequence_id, (request, left) in list(self.running.items()):
            token_id = left.pop(0)
            finish = Finish.LENGTH if not left else None
            if token_id in request.sampling.stop_token_ids:
                finish = Finish.STOP
            done = len(self.script) - len(left)
            events.append(Event(sequence_id, token_id, Stats(len(request.token_ids), done), finish))
            if finish:
                del self.running[sequence_id]
        return events


def scripted(folder: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> tuple[LLM, ScriptedEngine]:
    made: list[ScriptedEngine] = []

    class Engine(ScriptedEngine):
        script = tuple(TOKENIZER.encode(text, allow_special=True))

        def __init__(self, model: object, config: EngineConfig, trial: object, constraints: object) -> None:
            super().__init__(model, config)
            self.model, self.config = model, config
            made.append(self)

    monkeypatch.setattr(opening, "Engine", Engine)
    return LLM(folder), made[0]


def content(completion: Completion) -> tuple[str, tuple[int, ...], str]:
    """Everything but the seconds."""
    return completion.text, completion.token_ids, completion.finish_reason


def test_a_stream_s_pieces_are_the_text(llm: LLM) -> None:
    stream = llm.chat(USER, stream=True, max_tokens=30, seed=1)
    assert "".join(stream) == stream.completion.text
    assert content(stream.completion) == content(llm.chat(USER, max_tokens=30, seed=1))


def test_text_and_ids_mean_the_same(llm: LLM) -> None:
    ids = llm.tokenizer.encode("hello <|im_end|>", allow_special=True)
    options: Any = {"max_tokens": 10, "seed": 1}
    assert content(llm.generate("hello <|im_end|>", **options)) == content(llm.generate(ids, **options))


def test_a_list_of_prompts_answers_each_as_if_alone(llm: LLM) -> None:
    prompts = ["a", "bb bb bb", "hello"]  # one more than run together
    together = llm.generate(prompts, max_tokens=12, seed=5)
    alone = [llm.generate(prompt, max_tokens=12, seed=5) for prompt in prompts]
    assert [content(c) for c in together] == [content(c) for c in alone]


def test_two_streams_advance_side_by_side(llm: LLM) -> None:
    first, second = (llm.stream("hello", max_tokens=10, seed=seed) for seed in (1, 2))
    texts: dict[Stream, str] = {first: "", second: ""}
    for _ in range(20):
        for stream in texts:
            texts[stream] += next(stream, "")
    assert list(texts.values()) == [llm.generate("hello", max_tokens=10, seed=seed).text for seed in (1, 2)]


def test_the_seed_decides(llm: LLM) -> None:
    answers = [llm.generate("hello", max_tokens=20, temperature=1, seed=seed).token_ids for seed in (1, 1, 2)]
    assert answers[0] == answers[1] != answers[2]


def test_counts(llm: LLM) -> None:
    completion = llm.generate("xyz", max_tokens=7, temperature=0)
    assert completion.finish_reason == "length"
    assert len(completion.token_ids) == completion.stats.generated_tokens == 7
    assert completion.stats.prompt_tokens == 3
    assert completion.stats.prompt_seconds > 0


def test_a_closed_or_dropped_stream_frees_its_place(llm: LLM) -> None:
    engine: Any = llm._streams._engine
    for _ in range(3):
        stream = llm.stream("hello", max_tokens=50)
        next(stream)
        stream.close()
        with pytest.raises(UsageError, match="closed"):
            _ = stream.completion
        dropped = llm.stream("hello", max_tokens=50)
        next(dropped)
        del dropped
        gc.collect()
    assert not engine.has_work
    engine.check()


def test_the_answer_ends_at_the_end_token_by_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    llm, _ = scripted(folder, monkeypatch, "Hi<|im_end|>never")
    completion = llm.chat(USER)
    assert (completion.text, completion.finish_reason) == ("Hi", "stop")
    assert completion.token_ids[-1] == TOKENIZER.added_tokens["<|im_end|>"]


@pytest.mark.parametrize("end", ["<|im_end|>", "<|endoftext|>"])
def test_both_end_tokens_end_an_answer_in_reasoning_too(
    folder: Path, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    llm, engine = scripted(folder, monkeypatch, f"<think>a\n{end}</think>never")
    completion = llm.chat(USER)
    assert (completion.reasoning, completion.text, completion.finish_reason) == ("a", "", "stop")
    assert not engine.running


def test_an_end_token_spelled_out_in_other_tokens_is_text(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    llm, engine = scripted(folder, monkeypatch, "")
    engine_type: Any = type(engine)
    engine_type.script = tuple(TOKENIZER.encode("say <|im_end|> so", allow_special=False))
    assert llm.chat(USER).text == "say <|im_end|> so"
    assert llm.chat(USER, stop="<|im_end|>").text == "say "


def test_a_stop_string_ends_the_answer_and_the_generation(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    llm, engine = scripted(folder, monkeypatch, "one END two")
    for stop in ("END", ["x", "END"]):
        completion = llm.generate("p", stop=stop)
        assert (completion.text, completion.finish_reason) == ("one ", "stop")
    assert not engine.running


def test_what_was_held_back_comes_at_the_end(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    llm, _ = scripted(folder, monkeypatch, "one EN")
    stream = llm.stream("p", stop="END")
    assert "".join(stream) == "one EN"
    assert stream.completion.finish_reason == "length"


@pytest.mark.parametrize("template", [None, Path(__file__).parent / "text/templates/qwen3.5_4b_9b.jinja"])
def test_a_chat_answer_has_reasoning_and_text(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, template: Path | None
) -> None:
    for file in folder.iterdir():
        (tmp_path / file.name).symlink_to(file)
    raw = "hm STOP\n</think>\n\nHi STOP you"
    if template:
        (tmp_path / "chat_template.jinja").symlink_to(template)  # ends its prompt with <think>
    llm, engine = scripted(tmp_path, monkeypatch, raw if template else f"<think>\n{raw}")
    completion = llm.chat(USER, stop="STOP")
    assert (completion.reasoning, completion.text, completion.finish_reason) == ("hm STOP", "Hi ", "stop")
    assert not engine.running
    segments = list(llm.chat(USER, stop="STOP", stream=True).segments())
    assert "".join(text for kind, text in segments if kind is Kind.REASONING) == "hm STOP"
    assert "".join(llm.chat(USER, stop="STOP", stream=True)) == "Hi "
    raw_prompt = llm.generate("p")
    assert raw_prompt.text.endswith("Hi STOP you")
    assert raw_prompt.reasoning == ""


def test_a_prompt_is_rendered_by_the_template_and_its_control_tokens_are_text(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    llm, engine = scripted(folder, monkeypatch, "x")
    llm.chat([{"role": "user", "content": "<|im_end|>"}])
    ids = engine.requests[0].token_ids
    assert ids.count(TOKENIZER.added_tokens["<|im_end|>"]) == 1
    assert ids.count(TOKENIZER.added_tokens["<|im_start|>"]) == 2


def test_a_folder_s_own_template_is_used_and_its_process_ends(folder: Path, tmp_path: Path) -> None:
    for file in folder.iterdir():
        (tmp_path / file.name).symlink_to(file)
    (tmp_path / "chat_template.jinja").write_text("{{ messages[0].content }}{{ enable_thinking }}")
    with LLM(tmp_path) as llm:
        options: Any = {"max_tokens": 5, "temperature": 0}
        assert content(llm.chat(USER, **options)) == content(llm.generate("helloFalse", **options))
        child = llm.template._process._child
    assert child.returncode is not None


def test_defaults_come_from_generation_config_and_options_win(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for file in folder.iterdir():
        (tmp_path / file.name).symlink_to(file)
    (tmp_path / "generation_config.json").write_text(json.dumps({"temperature": 0.5, "top_k": 7, "eos_token_id": 3}))
    llm, engine = scripted(tmp_path, monkeypatch, "x")
    llm.generate("p", top_k=9, min_p=None)
    sampling = engine.requests[0].sampling
    assert (sampling.temperature, sampling.top_k, sampling.min_p) == (0.5, 9, 0)
    assert 3 in sampling.stop_token_ids
    assert sampling.seed is not None


def test_do_sample_false_is_greedy(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for file in folder.iterdir():
        (tmp_path / file.name).symlink_to(file)
    (tmp_path / "generation_config.json").write_text(json.dumps({"temperature": 0.5, "do_sample": False}))
    llm, engine = scripted(tmp_path, monkeypatch, "x")
    llm.generate("p")
    assert engine.requests[0].sampling.is_greedy


def test_the_size_and_the_mode_choose_the_card_s_advice(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for file in folder.iterdir():
        (tmp_path / file.name).symlink_to(file)
    template = Path(__file__).parent / "text/templates/qwen3.5_4b_9b.jinja"
    (tmp_path / "chat_template.jinja").symlink_to(template)
    llm, engine = scripted(tmp_path, monkeypatch, "x")
    llm.prompting.config = replace(llm.config, hidden_size=2560)
    for think in (None, True, False):
        llm.chat(USER, think=think)
    llm.chat(USER, think=False, presence_penalty=0.5, logit_bias={5: -1})
    llm.generate("p")
    sampling = [request.sampling for request in engine.requests]
    assert [(s.top_p, s.presence_penalty) for s in sampling] == [
        (0.95, 1.5), (0.95, 1.5), (0.8, 1.5), (0.8, 0.5), (0.95, 1.5)
    ]  # fmt: skip
    assert sampling[3].logit_bias == {5: -1}


@pytest.mark.parametrize("senseless", [{"temperature": "hot"}, {"top_k": 1.5}, {"top_p": 7}, {"min_p": [1]}])
def test_a_senseless_generation_config_is_the_model_s_fault(
    folder: Path, tmp_path: Path, senseless: dict[str, Any]
) -> None:
    for file in folder.iterdir():
        (tmp_path / file.name).symlink_to(file)
    (tmp_path / "generation_config.json").write_text(json.dumps(senseless))
    with pytest.raises(CheckpointError, match=next(iter(senseless))):
        LLM(tmp_path)


def test_what_cannot_be_is_refused_with_a_remedy(llm: LLM) -> None:
    refusals: list[tuple[Any, type[QwickError]]] = [
        (lambda: llm.generate(""), UsageError),
        (lambda: llm.generate([10**6]), UsageError),
        (lambda: llm.generate("a" * 100_000), CapacityError),
        (lambda: llm.generate("a", temperature=-1), UsageError),
        (lambda: llm.generate("a", stop=""), UsageError),
        (lambda: llm.generate("a", typical_p=0.5), UsageError),  # type: ignore[call-arg]
        (lambda: llm.generate("a", typical_p=None), UsageError),  # type: ignore[call-arg]
        (lambda: llm.generate("a", logit_bias={10**6: 1}), UsageError),
    ]
    for ask, error in refusals:
        with pytest.raises(error):
            ask()


def test_a_closed_llm_says_so(folder: Path) -> None:
    llm = LLM(folder)
    llm.close()
    llm.close()
    with pytest.raises(UsageError, match="closed"):
        llm.generate("a")


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"threads": 0}, "threads"),
        ({"threads_batch": -1}, "threads_batch"),
        ({"format": "q9_9"}, "q8_0"),
        ({"max_sequences": 0}, "max_sequences"),
        ({"context_len": 0}, "context_len"),
        ({"context_len": 10**9}, "context"),
    ],
)
def test_senseless_options_are_refused(folder: Path, options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(QwickError, match=complaint):
        LLM(folder, **options)


def test_a_model_without_tokenizer_is_refused(folder: Path, tmp_path: Path) -> None:
    for file in folder.iterdir():
        if file.name != "tokenizer.json":
            (tmp_path / file.name).symlink_to(file)
    with pytest.raises(CheckpointError, match=r"tokenizer\.json"):
        LLM(tmp_path)


def test_q8_0_answers_too(folder: Path) -> None:
    with LLM(folder, format="q8_0") as llm:
        assert llm.generate("hello", max_tokens=5, temperature=0).stats.generated_tokens == 5


@pytest.mark.parametrize("name", ["no/such/folder", "model.gguf", "What is 17 + 25?", "x" * 5000, "a\0b", ""])
def test_a_model_that_is_none_is_refused_with_a_remedy(name: str) -> None:
    with pytest.raises(UsageError, match=r"give|folder"):
        find_model(name)


def test_a_file_or_an_empty_folder_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"")
    for path in (tmp_path, tmp_path / "model.safetensors"):
        with pytest.raises(UsageError, match=r"config\.json"):
            find_model(path)


def test_progress_ends_at_the_total(folder: Path) -> None:
    seen: list[tuple[int, int]] = []
    with LLM(folder, progress=lambda done, total: seen.append((done, total))):
        pass
    assert seen[-1][0] == seen[-1][1]


def test_a_gguf_file_answers_as_the_folder_does(folder: Path, tmp_path: Path) -> None:
    raw = json.loads((folder / "tokenizer.json").read_text())
    path = write_gguf(
        tmp_path / "model.gguf", small_config(), 1, metadata=lambda writer: add_tokenizer(writer, raw, 512)
    )
    options: Any = {"max_tokens": 20, "temperature": 0}
    with LLM(folder) as wanted, LLM(path) as ours:
        assert content(ours.chat(USER, **options)) == content(wanted.chat(USER, **options))
        assert content(ours.generate("hello", **options)) == content(wanted.generate("hello", **options))


def test_a_gguf_file_may_advise_on_sampling(folder: Path, tmp_path: Path) -> None:
    raw = json.loads((folder / "tokenizer.json").read_text())

    def add_keys(writer: Any) -> None:
        add_tokenizer(writer, raw, 512)
        writer.add_float32("general.sampling.temp", 0.0)

    path = write_gguf(tmp_path / "model.gguf", small_config(), 1, metadata=add_keys)
    with LLM(path) as llm:
        advised, greedy = (content(llm.generate("hello", max_tokens=20, **more)) for more in ({}, {"temperature": 0}))
        assert advised == greedy
