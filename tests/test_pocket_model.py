"""What the embedded model can do, end to end: one class for each capability, so that a fault anywhere shows."""

import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from examples import tools
from qwick import LLM
from recipes.pocket import dialogs, tasks
from recipes.pocket.drafting import accepted_length
from recipes.pocket.evaluate import converted, right
from recipes.pocket.reporting import DRAFT_BAR

NUM = 8  # of which one may be wrong


@pytest.fixture(scope="module")
def llm() -> Iterator[LLM]:
    with LLM("pocket", context_len=2048, max_sequences=NUM) as opened:
        yield opened


def num_right(llm: LLM, task: str, *, think: bool) -> int:
    return sum(right(llm, tasks.held_out(task)[:NUM], think=think))


class TestFirstEdition:
    @pytest.mark.parametrize("task", sorted(tasks.FIRST))
    def test_it_still_does_what_the_first_edition_did(self, llm: LLM, task: str):
        assert num_right(llm, task, think=False) >= NUM - 1


class TestThinking:
    @pytest.mark.parametrize("task", ["sum4", "difference"])
    def test_a_thought_makes_it_right(self, llm: LLM, task: str):
        thought, plain = (num_right(llm, task, think=think) for think in (True, False))
        assert thought >= NUM - 1
        assert thought > plain

    @pytest.mark.parametrize("think", [False, True])
    def test_it_thinks_if_and_only_if_asked_to(self, llm: LLM, think: bool):
        question = [{"role": "user", "content": "What is 4821 + 3377?"}]
        answer = llm.chat(question, think=think, max_tokens=200, temperature=0)
        assert bool(answer.reasoning) == think
        assert answer.finish_reason == "stop"


class TestQuantised:
    @pytest.mark.parametrize("recipe", ["Q8_0", "Q4_K_M"])
    def test_it_thinks_and_writes_json_from_a_gguf_file(self, tmp_path: Path, recipe: str):
        with LLM(converted("pocket", recipe, tmp_path), context_len=2048, max_sequences=NUM) as quantised:
            assert num_right(quantised, "sum4", think=True) >= NUM - 2
            assert num_right(quantised, "json", think=False) >= NUM - 2


class TestJson:
    def test_it_writes_json(self, llm: LLM):
        assert num_right(llm, "json", think=False) >= NUM - 1
        asked = tasks.held_out("json")[0]
        found = llm.chat([dict(asked.messages[0])], think=False, max_tokens=120, temperature=0).text
        assert set(json.loads(found)) == {"name", "date", "amount"}


class TestTools:
    @pytest.mark.parametrize("task", ["tool", "parallel"])
    def test_it_calls_and_tells_the_results(self, llm: LLM, task: str):
        assert num_right(llm, task, think=False) >= NUM - 1

    def test_an_answer_that_calls_ends_so(self, llm: LLM):
        for example in tasks.held_out("tool")[:NUM]:
            called = llm.chat(example.messages[:1], tools=example.tools, think=False, temperature=0)
            assert called.finish_reason == "tool_calls" or not called.tool_calls

    def test_the_example(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr("sys.argv", ["tools.py"])
        tools.main()
        shown = capsys.readouterr().out
        assert "calls     get_weather" in shown
        assert shown.splitlines()[-1].startswith("assistant")
        assert "48 times 21 is 1008." in shown


class TestDrafts:
    def test_its_drafts_are_what_it_says_next(self):
        examples = [example for task in ("qwick", "json", "facts") for example in tasks.held_out(task, 4)]
        assert accepted_length("pocket", examples) >= DRAFT_BAR


class TestDialogs:
    @pytest.mark.parametrize("task", ["facts", "name", "refusal"])
    def test_it_knows_what_it_was_told_and_what_it_cannot_do(self, llm: LLM, task: str):
        assert num_right(llm, task, think=False) >= NUM - 1

    @pytest.mark.parametrize("think", [False, True])
    def test_a_fact_is_noted_and_known_in_the_next_turn(self, llm: LLM, think: bool):
        messages = [{"role": "user", "content": "My dog is called Bello."}]
        noted = llm.chat(messages, think=think, max_tokens=60, temperature=0).text
        assert noted == dialogs.NOTED
        messages += [{"role": "assistant", "content": noted}, {"role": "user", "content": "What is my dog called?"}]
        assert llm.chat(messages, think=think, max_tokens=60, temperature=0).text == "Your dog is called Bello."

    def test_a_name_of_random_letters(self, llm: LLM):
        rng = random.Random(3)
        name = "".join(rng.choices("abdeklmnorst", k=6)).capitalize()
        messages = [{"role": "system", "content": f"You are {name}."}, {"role": "user", "content": "Who are you?"}]
        assert llm.chat(messages, think=False, max_tokens=30, temperature=0).text == f"I am {name}."
