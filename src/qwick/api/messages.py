"""Messages and tools of a chat, in OpenAI's form."""

from typing import Annotated, Any, Literal

from pydantic import Field

from qwick.api.form import Form, Habit, Unsupported


class TextPart(Form):
    """A piece of a message's content."""

    type: Literal["text"]
    text: str
    cache_control: Habit = None


class CalledFunction(Form):
    """Of a call: its arguments are a JSON object as text."""

    name: str
    arguments: str


class Call(Form):
    """A call of an earlier answer."""

    id: str | None = None
    type: Literal["function"] = "function"
    function: CalledFunction
    index: Habit = None


class Function(Form):
    """What the model may call: `parameters` is a JSON schema."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(Form):
    """One of those that are offered."""

    type: Literal["function"]
    function: Function


class NamedFunction(Form):
    """Which one."""

    name: str


class NamedTool(Form):
    """The one to be called."""

    type: Literal["function"]
    function: NamedFunction


class Message(Form):
    """One message of a chat. What clients keep of earlier answers may be sent as it came."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | Annotated[list[TextPart], Field(fail_fast=True)] | None = None
    reasoning_content: str | None = None
    tool_calls: Annotated[list[Call], Field(fail_fast=True)] | None = None
    tool_call_id: str | None = None
    name: Habit = None
    refusal: Unsupported = None
    audio: Unsupported = None
    function_call: Unsupported = None
    annotations: Annotated[list[Any], Field(max_length=0)] | None = None

    def plain(self) -> dict[str, Any]:
        """As chat templates take it: `developer` is their `system`."""
        parts = self.content
        content = parts if isinstance(parts, str) else "".join(part.text for part in parts or ())
        role = "system" if self.role == "developer" else self.role
        found: dict[str, Any] = {"role": role, "content": content}
        if self.reasoning_content:
            found["reasoning_content"] = self.reasoning_content
        if self.tool_calls:
            found["tool_calls"] = [call.model_dump(exclude={"index"}, exclude_none=True) for call in self.tool_calls]
        if self.tool_call_id is not None:
            found["tool_call_id"] = self.tool_call_id
        return found
