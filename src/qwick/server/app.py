"""The routes: which path asks what. Nothing else is decided here."""

from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from qwick import __version__
from qwick.api.answers import Json
from qwick.api.requests import ChatRequest, CompletionRequest, DetokenizeRequest, TokenizeRequest
from qwick.errors import QwickError
from qwick.server import errors
from qwick.server.asking import respond
from qwick.server.chat import ChatQuestion
from qwick.server.completions import CompletionQuestion
from qwick.server.errors import ApiError, AsciiJson
from qwick.server.gate import Gate
from qwick.server.metrics import CONTENT_TYPE, Metrics
from qwick.server.models import model_list, model_of
from qwick.server.service import Gone, Service

_ERROR = {"description": "OpenAI's error object"}
_ERRORS: dict[int | str, dict[str, Any]] = dict.fromkeys((400, 401, 404, 408, 413, 429, 500, 503, 504), _ERROR)


def make_app(service: Service) -> FastAPI:
    """Of a service that may still be opening its model."""
    app = FastAPI(
        title="qwick",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        responses=_ERRORS,
        openapi_url="/openapi.json",
    )
    _add_answers(app, service)
    _add_rest(app, service)
    _add_errors(app)
    metrics = Metrics(service)

    @app.get("/metrics")
    async def metrics_text() -> Response:
        """For Prometheus."""
        return Response(metrics.text(), media_type=CONTENT_TYPE)

    if service.options.cors:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(service.options.cors),
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
            expose_headers=["x-request-id", "retry-after"],
        )
    app.add_middleware(Gate, options=service.options, watcher=metrics)
    return app


def _add_answers(app: FastAPI, service: Service) -> None:
    @app.post("/v1/chat/completions")
    async def chat(request: Request, body: ChatRequest) -> Response:
        """Answer a chat."""
        service.check_model(body.model)
        try:
            options = service.options
            question = ChatQuestion(service.llm, body, think=options.think, loop_guard=options.loop_guard)
            return await respond(service, question, request.receive, request.scope["qwick.note"])
        except QwickError as error:
            raise errors.of(error, tuple(ChatRequest.model_fields)) from None

    @app.post("/v1/completions")
    async def completions(request: Request, body: CompletionRequest) -> Response:
        """Continue a prompt."""
        service.check_model(body.model)
        try:
            question = CompletionQuestion(service.llm, body)
            return await respond(service, question, request.receive, request.scope["qwick.note"])
        except QwickError as error:
            raise errors.of(error, tuple(CompletionRequest.model_fields)) from None

    @app.post("/tokenize")
    async def tokenize(body: TokenizeRequest) -> Response:
        """The ids of a text, or of a chat's prompt."""
        service.check_model(body.model)
        llm, text, messages = service.llm, body.text(), body.messages or []
        if text is None:
            plain = [message.plain() for message in messages]
            ids = await llm.encode(plain, **body.asked(messages, service.options.think))
        else:
            ids = await llm.encode(text)
        found: Json = {"tokens": ids, "count": len(ids), "max_model_len": llm.context_len}
        if body.return_token_strs:
            text_of = llm.prompting.tokenizer.token_bytes
            found["token_strs"] = [text_of(token_id).decode(errors="replace") for token_id in ids]
        return AsciiJson(found)

    @app.post("/detokenize")
    async def detokenize(body: DetokenizeRequest) -> Response:
        """The text of ids."""
        service.check_model(body.model)
        text = await service.llm.decode(body.tokens)
        return AsciiJson({"prompt": text, "content": text})


def _add_rest(app: FastAPI, service: Service) -> None:
    @app.get("/v1/models")
    async def models() -> Json:
        """The model, under each of its names."""
        return model_list(service)

    @app.get("/v1/models/{name:path}")
    async def model(name: str) -> Json:
        """One of them."""
        service.check_model(name)
        return model_of(service, name)

    @app.get("/version")
    async def version() -> Json:
        """Of qwick."""
        return {"version": __version__}

    @app.head("/health", include_in_schema=False)
    @app.get("/health")
    async def health() -> Json:
        """Whether the server runs; it may still be loading the model."""
        return {"status": "ok"}

    @app.head("/ready", include_in_schema=False)
    @app.get("/ready")
    async def ready() -> Json:
        """Whether a question would be answered now."""
        service.require_ready()
        return {"status": "ready"}


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(ApiError)
    async def refused(request: Request, error: ApiError) -> Response:
        return _told(request, error)

    @app.exception_handler(QwickError)
    async def failed(request: Request, error: QwickError) -> Response:
        return _told(request, errors.of(error))

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        return _told(request, errors.of_validation(error.errors()))

    @app.exception_handler(HTTPException)
    async def unrouted(request: Request, error: HTTPException) -> Response:
        match error.__cause__:  # of a body that could not be received; FastAPI takes anything for bad JSON
            case ApiError() as cause:
                await request.scope["qwick.discard"](cause)
                return _told(request, cause)
            case Gone() as gone:
                request.scope["qwick.note"].told["ended"] = str(gone)
                return Response(status_code=499)
            case _:
                pass
        wrong = f"{request.method} {request.url.path!a:.200}: {error.detail}; /openapi.json lists what there is"
        return _told(request, ApiError(error.status_code, wrong))

    _ = refused, failed, invalid, unrouted


def _told(request: Request, error: ApiError) -> Response:
    request.scope["qwick.note"].told["error"] = error.word
    return error.response
