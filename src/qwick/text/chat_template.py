"""Messages to a prompt, by the chat template that came with the model."""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from qwick.errors import CheckpointError, TemplateError, UsageError
from qwick.text.json_file import read_object
from qwick.text.quoting import Json, Piece, Quoting, plain_data
from qwick.text.template_process import TemplateProcess
from qwick.weights.checkpoint import NO_METADATA, Metadata, Strings

MAX_TEMPLATE_BYTES = 1 << 20
_GGUF_KEY = "tokenizer.chat_template"
_GGUF_TOKENS = "tokenizer.ggml."

# SHA-256 of the official templates: does the model think unless told otherwise?
OFFICIAL = {
    "273d8e0e683b885071fb17e08d71e5f2a5ddfb5309756181681de4f5a1822d80": False,  # 0.8B, 2B
    "a4aee8afcf2e0711942cf848899be66016f8d14a889ff9ede07bca099c28f715": True,  # 4B, 9B
}
# Re-uploads change templates and even turn the default around, so for unknown ones the size decides (4B: 2560).
THINKING_HIDDEN_SIZE = 2560

# For a folder that has no template: ChatML, as all Qwen models know it, without thinking and without tools.
CHATML = """\
{%- macro text_of(content) %}
    {%- if content is string %}
        {{- content }}
    {%- else %}
        {%- for part in content %}
            {%- if part is mapping and part.type == 'text' %}
                {{- part.text }}
            {%- else %}
                {{- raise_exception('This template takes text only.') }}
            {%- endif %}
        {%- endfor %}
    {%- endif %}
{%- endmacro %}
{%- if tools %}
    {{- raise_exception('This template has no place for tools.') }}
{%- endif %}
{%- for message in messages %}
    {%- if message.role not in ['system', 'user', 'assistant'] %}
        {{- raise_exception('Unknown role ' ~ message.role ~ ': use system, user or assistant.') }}
    {%- endif %}
    {{- '<|im_start|>' + message.role + '\\n' + text_of(message.content)|trim + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""


@dataclass(frozen=True)
class ChatTemplate:
    """A template and what is known about it.

    special_tokens  bos_token, eos_token …, which templates may name
    is_own          the text is part of qwick (the embedded model's)
    """

    source: str
    special_tokens: Mapping[str, str] = field(default_factory=dict[str, str])
    is_own: bool = False

    @classmethod
    def open(cls, path: Path, metadata: Metadata = NO_METADATA, *, is_own: bool = False) -> "ChatTemplate":
        """The template of a model: a folder, or a GGUF file and its metadata; CHATML when it has none.

        Raises CheckpointError when it cannot be read.
        """
        if metadata:
            template = cls(_source_of_gguf(path, metadata), _special_tokens_of_gguf(metadata), is_own)
        else:
            config = read_object(path / "tokenizer_config.json")
            tokens = {key: _token_text(value) for key, value in config.items() if key.endswith("_token")}
            special_tokens = {key: text for key, text in tokens.items() if text is not None}
            template = cls(_find_source(path, config), special_tokens, is_own)
        if not template.is_known:
            _ = template._process  # starts now, beside the loading of the weights
        return template

    def prepare(self) -> None:
        """Do what the first `render` would do only once: 0.1 s. A template that cannot be compiled fails there."""
        if self.is_known:
            from qwick.text import jinja_sandbox

            jinja_sandbox.compile_template(self.source)

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.source.encode("utf-8", "surrogatepass")).hexdigest()

    @property
    def is_known(self) -> bool:
        """Whether its text is an official one or our own; only those are rendered in this process."""
        return self.is_own or self.sha256 in OFFICIAL or self.source == CHATML

    @property
    def can_think(self) -> bool:
        """Whether the template lets the caller choose."""
        return "enable_thinking" in self.source

    @property
    def takes_tools(self) -> bool:
        """Whether the template shows tools to the model."""
        return "tools" in self.source and self.source != CHATML

    def thinks_by_default(self, hidden_size: int) -> bool:
        """Whether the model with this hidden size thinks when the caller does not say."""
        return self.can_think and OFFICIAL.get(self.sha256, hidden_size >= THINKING_HIDDEN_SIZE)

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        think: bool,
        control_tokens: Collection[str],
        tools: Sequence[Mapping[str, Any]] = (),
        add_generation_prompt: bool = True,
    ) -> tuple[Piece, ...]:
        """The prompt in pieces: the template's control tokens, and text; their texts joined are the whole prompt.

        `control_tokens`: the texts the tokenizer would turn into one id each; only the template can write them. An
        earlier answer's `<think>` and `</think>` are left to the template; `<tool_response>` in a user message is text.
        Raises TemplateError when the template fails or refuses, UsageError when a message is no plain data.
        """
        if think and not self.can_think:
            raise TemplateError("the chat template has no switch for thinking; ask without it (--no-think)")
        try:
            plain_messages, plain_tools = plain_data(list(messages)), plain_data(list(tools))
        except RecursionError:
            raise UsageError("the messages are nested too deeply") from None
        quoting = Quoting(control_tokens, [plain_messages, plain_tools])
        variables: dict[str, Json] = {
            **self.special_tokens,
            "messages": quoting.messages(cast("list[Json]", plain_messages)),
            "tools": quoting.value(plain_tools) if tools else None,
            "documents": None,
            "add_generation_prompt": add_generation_prompt,
            "enable_thinking": think,
        }
        return quoting.pieces(self._render(variables))

    def _render(self, variables: dict[str, Json]) -> str:
        if not self.is_known:
            return self._process.render(self.source, variables)
        from qwick.text import jinja_sandbox

        try:
            return jinja_sandbox.compile_template(self.source).render(variables)
        except Exception as error:  # noqa: BLE001 (messages of a wrong shape make a template raise anything)
            message = f"the chat template failed: {jinja_sandbox.describe(error)}"
            raise TemplateError(message) from None

    @cached_property
    def _process(self) -> TemplateProcess:
        return TemplateProcess()

    def close(self) -> None:
        """End the child process, if there is one."""
        if "_process" in self.__dict__:
            self._process.close()


def _source_of_gguf(path: Path, metadata: Metadata) -> str:
    """The file's template, or its variant `default` where it has only named ones."""
    key = _GGUF_KEY if _GGUF_KEY in metadata else f"{_GGUF_KEY}.default"
    template = metadata.get(key, CHATML)
    if not isinstance(template, str) or len(template) > MAX_TEMPLATE_BYTES:
        raise CheckpointError(f"{path}: {key} is no text of up to {MAX_TEMPLATE_BYTES >> 20} MiB")
    return template


def _special_tokens_of_gguf(metadata: Metadata) -> dict[str, str]:
    """bos_token and so on, which tokenizer_config.json gives as texts and a GGUF file as ids."""
    tokens, found = metadata.get(f"{_GGUF_TOKENS}tokens"), dict[str, str]()
    for name, key in (("bos", "bos"), ("eos", "eos"), ("pad", "padding"), ("unk", "unknown")):
        token_id = metadata.get(f"{_GGUF_TOKENS}{key}_token_id")
        if isinstance(tokens, Strings) and isinstance(token_id, int) and 0 <= token_id < len(tokens):
            found[f"{name}_token"] = tokens[token_id]
    return found


def _find_source(folder: Path, tokenizer_config: Mapping[str, Any]) -> str:
    """The template's own file first, then the two JSON files that older exports keep it in."""
    path = folder / "chat_template.jinja"
    if path.is_file():
        try:
            if path.stat().st_size > MAX_TEMPLATE_BYTES:
                raise CheckpointError(f"{path} is larger than {MAX_TEMPLATE_BYTES >> 20} MiB: this is no chat template")
            return path.read_bytes().decode()
        except (OSError, UnicodeDecodeError) as error:
            raise CheckpointError(f"cannot read {path}: {error}; download the file again") from None
    processor = read_object(folder / "chat_template.json")
    for found in (tokenizer_config.get("chat_template"), processor.get("chat_template")):
        if found is not None:
            return _default_of(found, folder)
    return CHATML


def _default_of(found: object, folder: Path) -> str:
    """A template as a string, or the one named `default` of a list of {name, template}."""
    if isinstance(found, list):
        entries = [cast("dict[str, object]", entry) for entry in cast("list[object]", found) if isinstance(entry, dict)]
        found = next((entry.get("template") for entry in entries if entry.get("name") == "default"), None)
    if not isinstance(found, str) or len(found) > MAX_TEMPLATE_BYTES:
        raise CheckpointError(f"{folder}: chat_template is neither a text nor a list with one named `default`")
    return found


def _token_text(value: object) -> str | None:
    """A special token as tokenizer_config.json writes it: a text, or an object with `content`."""
    if isinstance(value, dict):
        value = cast("dict[str, object]", value).get("content")
    return value if isinstance(value, str) else None
