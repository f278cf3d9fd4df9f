"""What pydantic found wrong with a request, as one sentence that names the field."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Problem:
    """param: the field's path. code: OpenAI's word for it, if there is one."""

    message: str
    param: str | None = None
    code: str | None = None


def problem_of(problems: Sequence[Mapping[str, Any]]) -> Problem:
    """Of `ValidationError.errors()`; one thing is said, that which is deepest in the body."""
    problem = _deepest(problems)
    kind, told = problem.get("type", ""), problem.get("msg", "not as it must be")
    path = [str(part) for part in problem.get("loc", ()) if part != "body"]
    if kind == "json_invalid":
        return Problem(f"the body is not JSON: {problem.get('ctx', {}).get('error', told)}")
    named = ".".join(part for part in path if not _is_branch(part)) or None
    if kind == "value_error":
        return Problem(f"{named or 'the body'} has {told.removeprefix('Value error, ')}", named)
    if named is None:
        return Problem("the body must be a JSON object; send it with content-type: application/json")
    if kind == "extra_forbidden":
        return Problem(f"there is no field {named!a:.200} here", named[:200], "unknown_parameter")
    if kind == "missing":
        return Problem(f"{named} is missing", named, "missing_required_parameter")
    if kind == "none_required":
        told = "not supported; leave it out"
    return Problem(f"{named:.200}: {told:.300}", named[:200])


def _deepest(problems: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    none: Mapping[str, Any] = {}
    return max(problems, key=lambda each: len(each.get("loc", ())), default=none)


def _is_branch(part: str) -> bool:
    """Names that pydantic gives to the branches of a union, which no caller has written."""
    return part in {"str", "int", "float", "bool", "none"} or "[" in part or part[:1].isupper()
