"""What is said instead of an answer: a status, and OpenAI's error object."""

import logging
from collections.abc import Mapping, Sequence
from json import dumps
from typing import Any

from starlette.responses import Response

from qwick.api.answers import Json, error_body
from qwick.api.problems import problem_of
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
    def word(self) -> str:
        """What the log and the metrics call it."""
        return self.code or self.kind

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
    """What pydantic found wrong with a body."""
    problem = problem_of(problems)
    return ApiError(400, problem.message, param=problem.param, code=problem.code)
