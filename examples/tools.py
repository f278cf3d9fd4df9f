"""The embedded model calls Python functions and tells what they returned: `python examples/tools.py [QUESTION]`."""

import json
import sys
from collections.abc import Callable
from typing import Any

from qwick import LLM


def get_weather(city: str) -> dict[str, Any]:
    """Made up, as what the others know of towns."""
    return {"degrees": 7 + len(city), "sky": "sunny"}


def local_time(city: str) -> dict[str, Any]:
    """On a clock of one's own."""
    return {"time": f"{len(city):02}:30"}


def multiply(a: int, b: int) -> dict[str, Any]:
    """What the model itself cannot do."""
    return {"result": a * b}


FUNCTIONS: dict[str, Callable[..., dict[str, Any]]] = {f.__name__: f for f in (get_weather, local_time, multiply)}


def tool(name: str, description: str, **types: str) -> dict[str, Any]:
    """A function as OpenAI's API describes it: its parameters as a JSON schema."""
    properties = {key: {"type": kind} for key, kind in types.items()}
    parameters = {"type": "object", "properties": properties, "required": list(types)}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}


TOOLS = [
    tool("get_weather", "Get the weather of a city.", city="string"),
    tool("local_time", "Get the time in a city.", city="string"),
    tool("multiply", "Multiply two numbers.", a="integer", b="integer"),
]


def main() -> None:
    """Ask, carry out what is called, tell the results, until the answer is a text."""
    question = " ".join(sys.argv[1:]) or "What is the weather in Lisbon? Also: What is 48 times 21?"
    messages: list[dict[str, Any]] = [{"role": "user", "content": question}]
    print("user     ", question)
    with LLM("pocket") as llm:
        answer = llm.chat(messages, tools=TOOLS, think=False, temperature=0)
        while answer.tool_calls:
            calls = [call.as_message() for call in answer.tool_calls]
            messages.append({"role": "assistant", "content": answer.text, "tool_calls": calls})
            for call in answer.tool_calls:
                result = json.dumps(FUNCTIONS[call.name](**json.loads(call.arguments)))
                messages.append({"role": "tool", "tool_call_id": call.id, "content": result})
                print("calls    ", call.name, call.arguments, "->", result)
            answer = llm.chat(messages, tools=TOOLS, think=False, temperature=0)
    print("assistant", answer.text)


if __name__ == "__main__":
    main()
