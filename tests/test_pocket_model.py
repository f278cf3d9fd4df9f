"""What the embedded model can do, end to end: one class for each capability, so that a fault anywhere shows."""

import json
import random
from collections.abc import Iterator

import pytest

from qwick import LLM, pocket
from qwick.text.chat_template import ChatTemplate
from recipes.pocket import tasks
from recipes.pocket.evaluate import right

SECOND_EDITION = ChatTemplate((pocket.FOLDER / "chat_template.jinja").read_text()).is_known
pytestmark = pytest.mark.skipif(not SECOND_EDITION, reason="the first edition's weights are in place")
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


class TestDialogs:
    @pytest.mark.parametrize("task", ["facts", "name", "refusal"])
    def test_it_knows_what_it_was_told_and_what_it_cannot_do(self, llm: LLM, task: str):
        assert num_right(llm, task, think=False) >= NUM - 1

    def test_a_name_of_random_letters(self, llm: LLM):
        rng = random.Random(3)
        name = "".join(rng.choices("abdeklmnorst", k=6)).capitalize()
        messages = [{"role": "system", "content": f"You are {name}."}, {"role": "user", "content": "Who are you?"}]
        assert llm.chat(messages, think=False, max_tokens=30, temperature=0).text == f"I am {name}."
