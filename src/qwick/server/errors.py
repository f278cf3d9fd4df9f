"""What is said instead of an answer: a status, and OpenAI's error object."""

import logging
from collections.abc import Mapping, Sequence
from json import dumps
from typing import Any

from starlette.responses import Response

from qwick.api.answers import Json, error_body
from qwick.errors import CapacityError, EngineError, QwickError, TemplateError, UsageError

INVALID, SERVER, BUSY, DENIED = "invalid_request_error", "server_error", "rate_limit_error", "authentication_error"

log = logging.getLogger("qwick.server")


class AsciiJson(Response):
    """JSON in ASCII: texts of callers may hold lone surrogates, which UTF-8 cannot."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return dumps(content).encode()


class ApiError(Exception):
    """`retry_after`: seconds after which it is worth asking again; None: never as it is."""

    def __init__(
        self,
        status: int,
        message: str,
        kind: str = INVALID,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.retry_after = status, retry_after
        self.kind, self.param, self.code = kind, param, code

    @property
    def body(self) -> Json:
        return error_body(str(self), self.kind, self.param, self.code)

    @property
    def headers(self) -> dict[str, str]:
        found = {} if self.retry_after is None else {"retry-after": str(self.retry_after)}
        return found | ({"www-authenticate": "Bearer"} if self.status == 401 else {})

    @property
    def response(self) -> Response:
        return AsciiJson(self.body, self.status, self.headers)


def busy(message: str, code: str, seconds: int) -> ApiError:
    """429: too much is asked at once."""
    return ApiError(429, message, BUSY, code=code, retry_after=seconds)


def unavailable(message: str, code: str, seconds: int) -> ApiError:
    """503: not now."""
    return ApiError(503, message, SERVER, code=code, retry_after=seconds)


def of(error: Exception, fields: Sequence[str] = ()) -> ApiError:
    """`error` as callers see it. `fields` of the request: a message that begins with one is about it."""
    text = str(error)
    match error:
        case ApiError():
            return error
        case CapacityError():
            return ApiError(400, text, code="context_length_exceeded")
        case UsageError() | TemplateError():
            first = text.partition(" ")[0]
            return ApiError(400, text, param=first if first in fields else None)
        case EngineError():
            return unavailable(text, "engine_failed", 1)
        case QwickError():
            log.error("%s", text)
            return ApiError(500, text, SERVER)
        case _:
            log.error("unexpected", exc_info=error)
            return ApiError(500, "something unexpected happened; the server's log says what", SERVER)


def of_validation(problems: Sequence[Mapping[str, Any]]) -> ApiError:
    """What pydantic found wrong with a body; one thing is said, that which is deepest in it."""
    problem = _deepest(problems)
    kind, told = problem.get("type", ""), problem.get("msg", "not as it must be")
    path = [str(part) for part in problem.get("loc", ()) if part != "body"]
    if kind == "json_invalid":
        return ApiError(400, f"the body is not JSON: {problem.get('ctx', {}).get('error', told)}")
    named = ".".join(part for part in path if not _is_branch(part)) or None
    if kind == "value_error":
        return ApiError(400, f"{named or 'the body'} has {told.removeprefix('Value error, ')}", param=named)
    if named is None:
        return ApiError(400, "the body must be a JSON object; send it with content-type: application/json")
    if kind == "extra_forbidden":
        return ApiError(400, f"there is no field {named!a:.200} here", param=named[:200], code="unknown_parameter")
    if kind == "missing":
        return ApiError(400, f"{named} is missing", param=named, code="missing_required_parameter")
    if kind == "none_required":
        told = "not supported; leave it out"
    return ApiError(400, f"{named:.200}: {told:.300}", param=named[:200])


def _deepest(problems: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    none: Mapping[str, Any] = {}
    return max(problems, key=lambda each: len(each.get("loc", ())), default=none)


def _is_branch(part: str) -> bool:
    """Names that pydantic gives to the branches of a union, which no caller has written."""
    return part in {"str", "int", "float", "bool", "none"} or "[" in part or part[:1].isupper()
