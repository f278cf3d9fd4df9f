"""What all forms of requests have in common: strictness, bounds of numbers, and fields that are taken and not used."""

from typing import Annotated, Any, TypeAlias, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

_MOST_FIELDS = 256  # of a form; no form has so many
_MOST_BIASES = 4096

Habit: TypeAlias = Annotated[Any, Field(description="Taken and not used; `warnings` of the answer names it.")]
Unsupported: TypeAlias = Annotated[None, Field(description="Not supported: null, or left out.")]
Count: TypeAlias = Annotated[int, Field(ge=1, le=(1 << 31) - 1)]
TokenId: TypeAlias = Annotated[int, Field(ge=0, le=(1 << 31) - 1)]
TokenIds: TypeAlias = Annotated[list[TokenId], Field(fail_fast=True)]
"""One that is wrong is enough to say: a hostile body has millions, and a told error takes a kilobyte."""


def _few(value: Any, most: int) -> Any:
    """As it is, unless it has more members than can be right: each would be an error of its own."""
    if isinstance(value, dict) and len(cast("Any", value)) > most:
        raise ValueError(f"more than {most:,} members")
    return cast("Any", value)


def _few_biases(value: Any) -> Any:
    return _few(value, _MOST_BIASES)


Biases: TypeAlias = Annotated[dict[str, float], BeforeValidator(_few_biases)]


class Form(BaseModel):
    """No field beside its own, no number written as text."""

    model_config = ConfigDict(extra="forbid", strict=True)

    @model_validator(mode="before")
    @classmethod
    def _bounded(cls, value: Any) -> Any:
        return _few(value, _MOST_FIELDS)
