"""Rendering as transformers does, thinking passed explicitly, hostile templates, injected control tokens."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwick.errors import CheckpointError, TemplateError, UsageError
from qwick.text.chat_template import CHATML, OFFICIAL, ChatTemplate
from qwick.text.template_process import RENDER_SECONDS
from qwick.text.tokenizer import Tokenizer
from qwick.text.vocabulary import WholeVocabulary
from tests.text.tokenizer_folder import make_backend, write_folder

TEMPLATES = Path(__file__).parent / "templates"
SMALL = ChatTemplate((TEMPLATES / "qwen3.5_0.8b_2b.jinja").read_text())
LARGE = ChatTemplate((TEMPLATES / "qwen3.5_4b_9b.jinja").read_text())
TOKENIZER = Tokenizer(WholeVocabulary(make_backend()))
USER = [{"role": "user", "content": " Hi  "}]
TOOL_CALL = {"type": "function", "function": {"name": "add", "arguments": {"a": 1, "b": [2, "ü<"], "c": True}}}
TOOLS = [
    {"type": "function", "function": {"name": "add", "description": "a & b <c>", "parameters": {"type": "object"}}}
]
CONVERSATIONS: list[list[dict[str, Any]]] = [
    USER,
    [{"role": "system", "content": "Be brief."}, *USER],
    [*USER, {"role": "assistant", "content": "<think>\nhm\n</think>\n\nHello"}, {"role": "user", "content": "More"}],
    [*USER, {"role": "assistant", "content": "a", "reasoning_content": "r"}, {"role": "user", "content": "b"}],
    [
        *USER,
        {"role": "assistant", "content": "Adding.", "tool_calls": [TOOL_CALL, TOOL_CALL]},
        {"role": "tool", "content": "3"},
        {"role": "tool", "content": "4"},
        {"role": "assistant", "content": "Done"},
    ],
    [{"role": "user", "content": [{"type": "text", "text": "See"}, {"type": "image", "image": "x"}]}],
]


def render(template: ChatTemplate, messages: list[dict[str, Any]], **options: Any) -> str:
    options = {"think": False, "control_tokens": TOKENIZER.added_tokens, **options}
    return "".join(piece.text for piece in template.render(messages, **options))


@pytest.fixture
def unknown() -> Iterator[Any]:
    """Makes templates and ends their processes."""
    made: list[ChatTemplate] = []

    def make(source: str) -> ChatTemplate:
        made.append(ChatTemplate(source))
        return made[-1]

    yield make
    for template in made:
        template.close()


@pytest.mark.parametrize("messages", CONVERSATIONS)
@pytest.mark.parametrize("think", [False, True])
@pytest.mark.parametrize("tools", [[], TOOLS])
@pytest.mark.parametrize("template", [SMALL, LARGE])
def test_official_templates_render_as_in_transformers(
    template: ChatTemplate, messages: list[dict[str, Any]], think: bool, tools: list[dict[str, Any]]
) -> None:
    from transformers.utils.chat_template_utils import render_jinja_template

    assert template.is_known
    wanted, _ = render_jinja_template(
        [messages],
        tools=tools or None,
        chat_template=template.source,
        add_generation_prompt=True,
        enable_thinking=think,
    )
    assert render(template, messages, think=think, tools=tools) == wanted[0]


def test_a_child_process_renders_the_same(unknown: Any) -> None:
    copy = unknown("{# another hash #}" + LARGE.source)
    assert not copy.is_known
    for messages in CONVERSATIONS:
        assert render(copy, messages, tools=TOOLS) == render(LARGE, messages, tools=TOOLS)


def test_the_thinking_default_is_the_hash_s_or_else_the_size_s() -> None:
    assert set(OFFICIAL) == {SMALL.sha256, LARGE.sha256}
    assert not SMALL.thinks_by_default(hidden_size=2560)
    assert LARGE.thinks_by_default(hidden_size=1024)
    fork = ChatTemplate(LARGE.source + " ")
    assert [fork.thinks_by_default(hidden_size=n) for n in (1024, 2048, 2560, 4096)] == [False, False, True, True]
    assert not ChatTemplate(CHATML).thinks_by_default(hidden_size=4096)


def test_thinking_is_always_passed() -> None:
    for template in (SMALL, LARGE):
        assert render(template, USER, think=True).endswith("<|im_start|>assistant\n<think>\n")
        assert render(template, USER, think=False).endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")


def test_a_template_without_the_switch_refuses_to_think() -> None:
    with pytest.raises(TemplateError, match="thinking"):
        render(ChatTemplate(CHATML), USER, think=True)


def test_the_fallback_is_plain_chatml(tmp_path: Path) -> None:
    template = ChatTemplate.open(tmp_path)
    messages = [
        {"role": "system", "content": "S"},
        *USER,
        {"role": "assistant", "content": [{"type": "text", "text": "A"}]},
    ]
    assert render(template, messages) == (
        "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
        "<|im_start|>assistant\nA<|im_end|>\n<|im_start|>assistant\n"
    )


@pytest.mark.parametrize(
    ("messages", "complaint"),
    [
        ([], "No messages"),
        ([{"role": "system", "content": "x"}], "No user query"),
        ([*USER, {"role": "system", "content": "x"}], "at the beginning"),
        ([*USER, {"role": "developer", "content": "x"}], "role"),
        ([{"role": "user", "content": 3}], "content type"),
        (
            [*USER, {"role": "assistant", "content": "", "tool_calls": [{"name": "f", "arguments": "{}"}]}],
            "mapping|items",
        ),
    ],
)
def test_what_the_template_refuses_is_a_template_error(messages: list[dict[str, Any]], complaint: str) -> None:
    with pytest.raises(TemplateError, match=complaint):
        render(SMALL, messages)


def test_objects_that_are_no_data_are_refused() -> None:
    with pytest.raises(UsageError, match="Path"):
        render(SMALL, [{"role": "user", "content": [{"type": "image", "image": Path("x")}]}])


@pytest.mark.parametrize(
    "source",
    [
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "{{ 'a' * 10 ** 10 }}",
        "{{ 10 ** (10 ** 8) }}",
        "{% macro f(n) %}{{ f(n) }}{{ f(n) }}{% endmacro %}{{ f(1) }}",
        "{% set n = namespace(s='a') %}{% for i in range(99) %}{% set n.s = n.s ~ n.s %}{% endfor %}{{ n.s }}",
        "{{ lipsum(n=10000000) }}",
        "{{ x",
        "{{ ''.__class__.__mro__ }}",
        "{% set n = namespace(_x=1) %}",
        "{{ messages.append(1) }}",
        "{% include '/etc/passwd' %}",
    ],
)
def test_hostile_templates_end_in_our_error_soon(source: str, unknown: Any) -> None:
    template = unknown(source)
    template._process  # noqa: B018 (starting a process is not rendering)
    started = time.monotonic()
    with pytest.raises(TemplateError):
        render(template, USER)
    assert time.monotonic() - started < RENDER_SECONDS + 2  # the process start included


def test_a_template_still_renders_after_it_was_stopped_once(unknown: Any) -> None:
    template = unknown("{% if messages|length > 1 %}{% for i in range(99999) %}{% for j in range(99999) %}"
                       "{% endfor %}{% endfor %}{% endif %}fine")  # fmt: skip
    with pytest.raises(TemplateError, match="did not end"):
        render(template, [*USER, *USER])
    assert render(template, USER) == "fine"


def test_hf_conventions_hold(unknown: Any) -> None:
    source = (
        "{%- for m in messages %}\n    {%- if loop.index > 1 %}{% break %}{% endif %}\n"
        "{% generation %}{{ m | tojson(indent=2) }}{% endgeneration %}{%- endfor %}\n"
        "{{ eos_token }}{{ strftime_now('') }}."
    )
    template = unknown(source)
    expected = '{\n  "role": "user",\n  "content": "<&ü"\n}.'
    assert render(template, [{"role": "user", "content": "<&ü"}] * 2) == expected


HOSTILE = [
    "<|im_end|>",
    "<|im_start|>",
    "</think>",
    "<think>",
    "</tool_response>",
    "<|im_",
    "end|>",
    "<",
    "\n",
    "a",
    "\ue000",
]
TEXT = st.lists(st.sampled_from(HOSTILE)).map("".join)


@given(st.lists(TEXT, min_size=1, max_size=3), TEXT, TEXT)
def test_no_text_of_others_becomes_a_control_token(parts: list[str], name: str, system: str) -> None:
    """Also when the template joins halves from several places."""
    tool_call = {"function": {"name": name, "arguments": {name: name}}}

    def conversation(parts: list[str], name: str, tool_call: dict[str, Any], system: str) -> list[dict[str, Any]]:
        return [
            {"role": "system", "content": system},
            {"role": "user", "content": [{"type": "text", "text": part} for part in parts]},
            {"role": "assistant", "content": "ok", "tool_calls": [tool_call]},
            {"role": "tool", "content": name},
        ]

    def control(messages: list[dict[str, Any]]) -> list[int]:
        pieces = SMALL.render(messages, think=False, control_tokens=TOKENIZER.added_tokens)
        added = set(TOKENIZER.added_tokens.values())
        return [i for i in TOKENIZER.encode_pieces(pieces) if i in added]

    harmless = {"function": {"name": "x", "arguments": {"x": "x"}}}
    assert control(conversation(parts, name, tool_call, system)) == control(conversation(["x"], "x", harmless, "x"))


@given(TEXT)
def test_quoted_text_is_the_text_itself(text: str) -> None:
    rendered = render(SMALL, [{"role": "user", "content": f"a{text}b"}])
    assert rendered.startswith(f"<|im_start|>user\na{text}b<|im_end|>\n")


def test_ids_equal_those_of_the_whole_prompt_when_nothing_is_injected() -> None:
    for messages in CONVERSATIONS:
        pieces = SMALL.render(messages, think=False, control_tokens=TOKENIZER.added_tokens)
        whole = "".join(piece.text for piece in pieces)
        assert TOKENIZER.encode_pieces(pieces) == TOKENIZER.encode(whole, allow_special=True)


@pytest.mark.parametrize(
    "files",
    [
        {"chat_template": "T"},
        {"tokenizer_config": {"chat_template": "T"}},
        {
            "tokenizer_config": {
                "chat_template": [{"name": "rag", "template": "R"}, {"name": "default", "template": "T"}]
            }
        },
    ],
)
def test_the_template_is_found_where_exports_put_it(tmp_path: Path, files: dict[str, Any]) -> None:
    template = ChatTemplate.open(write_folder(tmp_path, **files), is_own=True)
    assert template.source == "T"


def test_a_senseless_chat_template_is_our_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="chat_template"):
        ChatTemplate.open(write_folder(tmp_path, tokenizer_config={"chat_template": [1, 2]}))
