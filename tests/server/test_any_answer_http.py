"""Whatever a model writes: over HTTP comes what its whole text reads as, in one piece and streamed."""

import random
from typing import Any

import openai
import pytest

from qwick.text.answer import Answer
from qwick.text.segments import Segments
from qwick.text.tool_calls import ToolCalls
from qwick.text.tools import checked_tools
from tests.server.scripted_asking import TOOLS, Said, both, call, say

PIECES = (
    "Some text. ",
    "\n\n",
    "</think>",
    "\n</think>\n\n",
    "<think>",
    "<tool_call>",
    "<tool_call>\n",
    "<function=weather>\n",
    "<function=",
    "</function>\n",
    "</tool_call>",
    "<parameter=city>\n",
    "</parameter>\n",
    "Köln 日本 🙂",
    '{"name": "weather", "arguments": {"city": "Ulm"}}',
    '{"a": [1, "}"]}',
    call("weather", city="Ulm", days="3"),
    call("book", title="a\n</parameter>\nb", price="1e3", pages="[1,"),
    call("book", note="null", by="{'name': 1}", paid="maybe"),
    "  ",
    "<",
    "5",
)


def read_at_once(text: str, *, think: bool, parallel: bool) -> Said:
    """By the parser alone, given the whole text."""
    prompt = "<|im_start|>assistant\n<think>\n" + ("" if think else "\n</think>\n\n")
    tools = checked_tools(TOOLS, parallel=parallel)
    answer = Answer(lambda _: text.encode(), (), ToolCalls(tools, Segments(prompt)))
    answer.push(0)
    answer.finish()
    calls = [(each.name, each.arguments) for each in answer.tool_calls]
    return Said(answer.text, answer.reasoning, calls, "tool_calls" if calls else "stop")


@pytest.mark.parametrize("seed", range(40))
def test_any_answer(free_client: openai.OpenAI, seed: int) -> None:
    rng = random.Random(seed)
    text = "".join(rng.choices(PIECES, k=rng.randint(1, 12)))
    think, parallel = rng.random() < 0.5, rng.random() < 0.7
    options: Any = {"tools": TOOLS, "parallel_tool_calls": parallel, "extra_body": {"enable_thinking": think}}
    said = both(free_client, say(text if think else f"</think>\n\n{text}"), **options)
    said.warnings.clear()  # that no grammar holds the calls
    assert said == read_at_once(text, think=think, parallel=parallel), text
