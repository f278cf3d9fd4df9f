"""Whether, and how long, the model thinks: one switch and one budget, from the fields of all clients."""

from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from qwick.api.form import Form
from qwick.errors import UsageError

Effort: TypeAlias = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]

# Tokens of thought. Google's API for OpenAI's clients means the same by these two; on a CPU 1,024 are a minute or less.
BUDGETS: dict[str, int] = {"low": 1024, "medium": 8192}


class TemplateOptions(Form):
    """Of the chat template."""

    enable_thinking: bool | None = None


class Thinking(Form):
    """Fields that must agree."""

    enable_thinking: bool | None = None
    think: bool | None = None
    chat_template_kwargs: TemplateOptions | None = None
    reasoning_effort: Effort | None = None
    thinking_budget: Annotated[int, Field(ge=0, le=(1 << 31) - 1)] | None = None

    @property
    def thinks(self) -> bool | None:
        """None: left to the model. Raises UsageError where it is said both ways; a budget above 0 wants a thought."""
        kwargs, effort, budget = self.chat_template_kwargs, self.reasoning_effort, self.thinking_budget
        said = {
            "enable_thinking": self.enable_thinking,
            "think": self.think,
            "chat_template_kwargs.enable_thinking": kwargs.enable_thinking if kwargs else None,
            "reasoning_effort": None if effort is None else effort not in ("none", "minimal"),
            "thinking_budget": None if budget is None else budget > 0,
        }
        found = {name: value for name, value in said.items() if value is not None}
        if len(set(found.values())) > 1:
            raise UsageError(f"{' and '.join(found)} contradict each other: does the model think or not?")
        return next(iter(found.values()), None)

    @property
    def budget(self) -> int | None:
        """Tokens that a thought may take: what was said, else what the effort means; None: no bound."""
        if self.thinking_budget is not None:
            return self.thinking_budget
        return None if self.reasoning_effort is None else BUDGETS.get(self.reasoning_effort)
