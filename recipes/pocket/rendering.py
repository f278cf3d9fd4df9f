"""Examples as the official chat template writes them, and as token ids with what is to be learned marked.

Written out in Python, because the template takes ten times as long; a test compares the two.
"""

import json
from collections.abc import Sequence

from tokenizers import Tokenizer

from recipes.pocket.example import Example, Message, Tool
from recipes.pocket.packing import Conversation

START, END, PAD = "<|im_start|>", "<|im_end|>", "<|endoftext|>"
NO_THOUGHT = "<think>\n\n</think>\n\n"
TOOLS_HEAD = "# Tools\n\nYou have access to the following functions:\n\n<tools>"
TOOLS_TAIL = (
    "</tools>\n\nIf you choose to call a function ONLY reply in the following format with NO suffix:\n\n<tool_call>\n"
    "<function=example_function_name>\n<parameter=example_parameter_1>\nvalue_1\n</parameter>\n"
    "<parameter=example_parameter_2>\nThis is the value for the second parameter\nthat can span\nmultiple lines\n"
    "</parameter>\n</function>\n</tool_call>\n\n<IMPORTANT>\nReminder:\n- Function calls MUST follow the specified "
    "format: an inner <function=...></function> block must be nested within <tool_call></tool_call> XML tags\n"
    "- Required parameters MUST be specified\n- You may provide optional reasoning for your function call in natural "
    "language BEFORE the function call, but NOT after\n- If there is no function call available, answer the question "
    "like normal with your current knowledge and do not tell the user about function calls\n</IMPORTANT>"
)

Part = tuple[str, bool]  # text, and whether it is to be learned


def parts(example: Example, *, think: bool, learn_history: bool) -> list[Part]:
    """The rendered conversation in parts. To be learned is what the model writes after its last question, and with
    `learn_history` earlier answers too."""
    found: list[Part] = []
    messages = list(example.messages)
    if example.tools or messages[0]["role"] == "system":
        has_system = messages[0]["role"] == "system"
        system = str(messages.pop(0)["content"]) if has_system else ""
        found.append((f"{START}system\n{_system(example.tools, system)}{END}\n", False))
    last_question = max(i for i, message in enumerate(messages) if message["role"] == "user")
    for i, message in enumerate(messages):
        match message["role"]:
            case "user":
                found.append((f"{START}user\n{message['content']}{END}\n", False))
            case "tool":
                begins, ends = messages[i - 1]["role"] != "tool", _role(messages, i + 1) != "tool"
                text = f"\n<tool_response>\n{message['content']}\n</tool_response>"
                found.append((f"{START}user{text}" if begins else text, False))
                if ends:
                    found.append((f"{END}\n", False))
            case _:
                found += _answer(message, think=think, current=i > last_question, learn_history=learn_history)
    return found


def prompt(example: Example, num_messages: int, *, think: bool) -> str:
    """What the model is given for its answer after the first `num_messages` messages."""
    asked = Example(example.task, example.key, example.messages[:num_messages], example.tools)
    text = "".join(text for text, _ in parts(asked, think=think, learn_history=False))
    return text + f"{START}assistant\n" + ("<think>\n" if think else NO_THOUGHT)


def written(message: Message, *, think: bool) -> str:
    """What the model is to write for an assistant message, the end of the turn included."""
    text = str(message["content"]) + _calls(message) + END
    return f"{message['reasoning_content']}\n</think>\n\n{text}" if think else text


def conversation(
    tokenizer: Tokenizer, example: Example, *, think: bool, learn_history: bool | None = None
) -> Conversation:
    """For training. With thinking earlier answers are not learned: theirs would be answers without a thought."""
    learn_history = not think if learn_history is None else learn_history
    ids: list[int] = []
    learned: list[bool] = []
    for text, is_learned in parts(example, think=think, learn_history=learn_history):
        encoded: list[int] = tokenizer.encode(text).ids
        ids += encoded
        learned += [is_learned] * len(encoded)
    return Conversation(ids, learned, example.task)


def pad_id(tokenizer: Tokenizer) -> int:
    found = tokenizer.token_to_id(PAD)
    assert found is not None
    return found


def _system(tools: Sequence[Tool], system: str) -> str:
    if not tools:
        return system
    schemas = "".join("\n" + json.dumps(tool, ensure_ascii=False) for tool in tools)
    return f"{TOOLS_HEAD}{schemas}\n{TOOLS_TAIL}" + (f"\n\n{system}" if system else "")


def _answer(message: Message, *, think: bool, current: bool, learn_history: bool) -> list[Part]:
    if not current:
        return [(f"{START}assistant\n", False), (written(message, think=False), learn_history), ("\n", False)]
    opening = f"{START}assistant\n" + ("<think>\n" if think else NO_THOUGHT)
    return [(opening, False), (written(message, think=think), True), ("\n", False)]


def _calls(message: Message) -> str:
    texts: list[str] = []
    for call in message.get("tool_calls", ()):
        function = call["function"]
        arguments = "".join(
            f"<parameter={name}>\n{value}\n</parameter>\n" for name, value in function["arguments"].items()
        )
        texts.append(f"<tool_call>\n<function={function['name']}>\n{arguments}</function>\n</tool_call>")
    return "\n".join(texts)


def _role(messages: Sequence[Message], i: int) -> str:
    return str(messages[i]["role"]) if i < len(messages) else ""
