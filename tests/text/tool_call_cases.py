"""Answers of Qwen3.5 and what is read from them: the cases of llama.cpp's tests/test-chat.cpp for Qwen3.5-4B.jinja.

The inputs are theirs, in the order of their file (25 in the block of the Qwen3.5 template; version of llama-cpp-python
0.3.36); the expectations are ours. Where the two differ, `differs` says how theirs is and why ours is not.
"""

from dataclasses import dataclass
from typing import Any

THINKING, PLAIN = "<|im_start|>assistant\n<think>\n", "<|im_start|>assistant\n<think>\n\n</think>\n\n"


def tool(name: str, **types: str) -> dict[str, Any]:
    """A tool whose arguments are of the types given."""
    properties = {key: {"type": kind} for key, kind in types.items()}
    return {"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": properties}}}


SPECIAL = tool("special_function", arg1="integer")
OPTIONAL = tool("special_function_with_opt", arg1="integer", arg2="integer")
PYTHON = tool("python", code="string")
EDIT = tool("edit", filename="string", oldString="string", newString="string")
TERMINAL = tool("run_in_terminal", command="string")
TODO = tool("manage_todo_list", todos="array")
EMPTY = tool("empty_args")
NO_PROPERTIES = {"type": "function", "function": {"name": "empty_args_no_props", "parameters": {"type": "object"}}}


@dataclass(frozen=True)
class Case:
    """What the prompt ends with, what the model wrote, and what is read."""

    raw: str
    prompt: str = PLAIN
    tools: tuple[dict[str, Any], ...] = ()
    reasoning: str = ""
    content: str = ""
    calls: tuple[tuple[str, dict[str, Any]], ...] = ()
    differs: str = ""


def call(name: str, **values: str) -> str:
    parameters = "".join(f"<parameter={key}>\n{value}\n</parameter>\n" for key, value in values.items())
    return f"<tool_call>\n<function={name}>\n{parameters}</function>\n</tool_call>"


ONE = ("special_function", {"arg1": 1})
PWD = ("run_in_terminal", {"command": "pwd"})
CALL_ONE, CALL_PWD = call("special_function", arg1="1"), call("run_in_terminal", command="pwd")
HELLO = "Hello, world!\nWhat's up?"
CODE = 'def hello():\n    print("Hello, world!")\n\nhello()'
INVOICE = '{"amount": 123.45, "date": "2025-12-03"}'
NO_BREAK = (
    "theirs keeps the line break before the call in the content; the template trims it, so it is none of the text"
)

LLAMA_CPP = (
    Case(f"I'm\nthinking\n</think>\n\n{HELLO}", THINKING, (), "I'm\nthinking", HELLO),
    Case(
        f"I'm\nthinking\n</think>\n\n{HELLO}",
        THINKING,
        (),
        "I'm\nthinking",
        HELLO,
        differs="theirs is asked for one text with the tags; ours always tells reasoning from content",
    ),
    Case(CALL_ONE, PLAIN, (SPECIAL,), calls=(ONE,)),
    Case(f"I'm\nthinking\n</think>\n\n{CALL_ONE}", THINKING, (SPECIAL,), "I'm\nthinking", calls=(ONE,)),
    Case(
        f"{CALL_ONE}\n{call('special_function_with_opt', arg1='1', arg2='2')}",
        PLAIN,
        (SPECIAL, OPTIONAL),
        calls=(ONE, ("special_function_with_opt", {"arg1": 1, "arg2": 2})),
    ),
    Case(call("python", code=CODE), PLAIN, (PYTHON,), calls=(("python", {"code": CODE}),)),
    Case(
        call("edit", filename="foo.c", oldString="#iclunde", newString="#include"),
        PLAIN,
        (EDIT,),
        calls=(("edit", {"filename": "foo.c", "oldString": "#iclunde", "newString": "#include"}),),
    ),
    Case(
        call("edit", filename="foo.c", oldString="#iclunde", newString="#include\n"),
        PLAIN,
        (EDIT,),
        calls=(("edit", {"filename": "foo.c", "oldString": "#iclunde", "newString": "#include\n"}),),
    ),
    Case(
        call("python", code='    print("Hello, world!")'),
        PLAIN,
        (PYTHON,),
        calls=(("python", {"code": '    print("Hello, world!")'}),),
    ),
    Case(
        f"I need to output the invoice details in JSON\n</think>\n\n{INVOICE}",
        THINKING,
        (),
        "I need to output the invoice details in JSON",
        INVOICE,
    ),
    Case(CALL_PWD, THINKING, (TERMINAL,), calls=(PWD,)),
    Case(
        f"Need to inspect the current directory.\n{CALL_PWD}",
        THINKING,
        (TERMINAL,),
        "Need to inspect the current directory.",
        calls=(PWD,),
    ),
    Case(call("empty_args"), PLAIN, (EMPTY,), calls=(("empty_args", {}),)),
    Case(call("empty_args_no_props"), PLAIN, (NO_PROPERTIES,), calls=(("empty_args_no_props", {}),)),
    Case(
        f"<think>\n\n</think>\n\n{CALL_ONE}",
        THINKING,
        (SPECIAL,),
        "<think>",
        calls=(ONE,),
        differs="theirs keeps the line breaks at the end of the reasoning; the template strips them",
    ),
    Case(f"</think>\n\n{CALL_ONE}", THINKING, (SPECIAL,), calls=(ONE,)),
    Case(f"</think>\n\n{CALL_PWD}", THINKING, (TERMINAL,), calls=(PWD,)),
    Case(
        f"</think>\n\nLet me inspect the current directory.\n{CALL_PWD}",
        THINKING,
        (TERMINAL,),
        content="Let me inspect the current directory.",
        calls=(PWD,),
        differs=NO_BREAK,
    ),
    Case(  # theirs with tool_choice required; what is read does not depend on it
        f"</think>\n\nLet me inspect the current directory.\n{CALL_PWD}",
        THINKING,
        (TERMINAL,),
        content="Let me inspect the current directory.",
        calls=(PWD,),
        differs=NO_BREAK,
    ),
    Case(
        f"I should inspect the directory.\n</think>\n\nLet me inspect it now.\n{CALL_PWD}",
        THINKING,
        (TERMINAL,),
        "I should inspect the directory.",
        "Let me inspect it now.",
        (PWD,),
        differs=NO_BREAK,
    ),
    Case(
        "world!\nWhat's up?",
        f"{THINKING}I'm thinking\n</think>\n\nHello, ",
        (),
        content="world!\nWhat's up?",
        differs="theirs tells what the prompt held of the answer again; ours tells what the model wrote",
    ),
    Case(
        f" thinking\n</think>\n\n{HELLO}",
        f"{THINKING}I'm",
        (),
        content=f" thinking\n</think>\n\n{HELLO}",
        differs="an answer begun in the middle of its thought is not asked for here (no prompt is made so)",
    ),
    # Three with an earlier call and its result in the prompt, which ends as ever.
    Case(
        f"I need to run a terminal command.\n</think>\n\n{CALL_PWD}",
        THINKING,
        (TODO, TERMINAL),
        "I need to run a terminal command.",
        calls=(PWD,),
    ),
    Case(
        f"I need to run a terminal command.\n</think>\n\nLet me inspect the current directory.\n{CALL_PWD}",
        THINKING,
        (TODO, TERMINAL),
        "I need to run a terminal command.",
        "Let me inspect the current directory.",
        (PWD,),
        differs=NO_BREAK,
    ),
    Case(f"</think>\n\n{CALL_PWD}", THINKING, (TODO, TERMINAL), calls=(PWD,)),
)
