"""The routes. Every error has OpenAI's shape; nothing in a request is trusted."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from outrider import LLM, Grammar, SamplingParams
from outrider.engine.outputs import Piece
from outrider.errors import OutriderError, UsageError
from outrider.server.answers import Chunks, Form
from outrider.server.event_stream import EventStream, event
from outrider.server.limits import Limits, TimedOutError
from outrider.server.metrics import Metrics
from outrider.server.openapi import describe
from outrider.server.page import page_routes
from outrider.server.scheduler import QueueFullError, Scheduler, Ticket
from outrider.server.schema import ChatRequest, CompletionRequest, Sampled
from outrider.server.turn import Turn, UnknownToolsError
from outrider.tokenizer.utf8 import without_surrogates

_log = logging.getLogger("outrider")

MAX_BODY_BYTES = 8 << 20
GRACE_SECONDS = 30.0
_ENCODERS, _COMPILERS = 2, 4
"""Prompts that are encoded, and grammars that are compiled, at once: either may take some hundred times its size, and
the system's allocator keeps that for each thread that ever did so."""
_CLIENT_GONE = 499
"""Nobody reads it; the number is nginx's."""

Model = TypeVar("Model", bound=BaseModel)


class ApiError(Exception):
    """An error that the client is told: its HTTP status and OpenAI's type."""

    def __init__(self, status: int, kind: str, message: str, *, parameter: str | None = None) -> None:
        super().__init__(message)
        self.status, self.kind, self.parameter = status, kind, parameter

    def response(self, retry_after: int | None = None) -> Response:
        """`{"error": {...}}`; `retry_after` are seconds, told where it is a matter of time."""
        later = retry_after is not None and self.status in (429, 503)
        headers = {"Retry-After": str(retry_after)} if later else None
        return JSONResponse(_error_body(str(self), self.kind, self.parameter), self.status, headers)


class Server:
    """The application around one model.

    Args:
        name: what clients call the model.
        api_key: what they have to send as bearer token; None lets everyone in.
        scheduler: as `Scheduler`, not started.
        limits: the scheduler's.
    """

    def __init__(
        self,
        llm: LLM,
        scheduler: Scheduler,
        metrics: Metrics,
        *,
        name: str,
        api_key: str | None,
        limits: Limits | None = None,
    ) -> None:
        self._llm, self._scheduler, self._metrics = llm, scheduler, metrics
        self._name, self._api_key, self._limits = name, api_key, limits or Limits()
        self._description = describe(keyed=api_key is not None)
        self._encoders = ThreadPoolExecutor(_ENCODERS, "outrider-encode")
        self._compilers = ThreadPoolExecutor(_COMPILERS, "outrider-compile")

    def app(self) -> Starlette:
        """The ASGI application."""
        routes = [
            Route("/v1/completions", self._guarded(self.completions), methods=["POST"]),
            Route("/v1/chat/completions", self._guarded(self.chat), methods=["POST"]),
            Route("/v1/models", self._guarded(self.models)),
            Route("/v1/models/{model:path}", self._guarded(self.model)),
            Route("/health", self.health),
            Route("/metrics", self._guarded(self.metrics)),
            Route("/openapi.json", self.description),
            *page_routes(),
        ]
        return Starlette(routes=routes, lifespan=self._lifespan, exception_handlers={HTTPException: _no_such_route})

    async def completions(self, request: Request) -> Response:
        """`POST /v1/completions`: the text goes on from the prompt."""
        wanted = await self._read(request, CompletionRequest)
        ids = await self._encoded(self._llm.encode, wanted.only_prompt)
        field, grammar = _form_of(wanted)
        sets = wanted.params(self._llm.context - len(ids), wanted.logprobs, grammar)
        form = Form(False, self._name, self._llm.tokenizer, wanted.logprobs is not None)
        return await self._answer(request, wanted, ids, sets, form, field)

    async def chat(self, request: Request) -> Response:
        """`POST /v1/chat/completions`: the model's next turn."""
        wanted = await self._read(request, ChatRequest)
        if self._llm.chat is None:
            problem = f"{self._name} is a base model without a chat template: use /v1/completions"
            raise ApiError(400, "invalid_request_error", problem)
        try:
            messages = [message.plain() for message in wanted.messages]
        except ValueError as error:
            raise ApiError(400, "invalid_request_error", str(error), parameter="messages") from error
        turn = Turn(self._llm.chat.source, self._llm.tokenizer, wanted)
        tools = [tool.plain() for tool in wanted.offered] or None
        ids = await self._encoded(self._llm.chat_prompt, messages, tools=tools, thinking=turn.thinking)
        field, grammar = _form_of(wanted)
        if grammar is not None and turn.tools:
            problem = f"{field} and tools exclude each other: leave one out, or set tool_choice to none"
            raise ApiError(400, "invalid_request_error", problem, parameter=field)
        if grammar is not None:  # what is wrong with it is said before it becomes part of another
            await self._check(SamplingParams(grammar=grammar), field)
        logprobs = wanted.top_logprobs if wanted.logprobs else None
        room = self._llm.context - len(ids)
        sets = wanted.params(room, logprobs, turn.grammar(grammar), turn.keep_special, turn.last_mark)
        form = Form(True, self._name, self._llm.tokenizer, logprobs is not None, turn.channels, turn.tools)
        return await self._answer(request, wanted, ids, sets, form, field or "tool_choice")

    async def models(self, _request: Request) -> Response:
        """`GET /v1/models`."""
        return JSONResponse({"object": "list", "data": [self._about()]})

    async def model(self, request: Request) -> Response:
        """`GET /v1/models/{model}`."""
        if request.path_params["model"] != self._name:
            raise ApiError(404, "not_found_error", f"there is no model {request.path_params['model']}")
        return JSONResponse(self._about())

    async def health(self, _request: Request) -> Response:
        """`GET /health`: 200 while requests are taken."""
        running, waiting = self._scheduler.counts
        return JSONResponse({"status": "ok", "running": running, "waiting": waiting})

    async def metrics(self, _request: Request) -> Response:
        """`GET /metrics`."""
        return Response(self._metrics.text(self._scheduler, self._llm.caches), media_type="text/plain; version=0.0.4")

    async def description(self, _request: Request) -> Response:
        """`GET /openapi.json`."""
        return JSONResponse(self._description)

    # -- the life of an answer ---------------------------------------------------------------------------------------

    async def _answer(
        self,
        request: Request,
        wanted: Sampled,
        ids: list[int],
        sets: list[SamplingParams],
        form: Form,
        field: str,
    ) -> Response:
        if wanted.model not in ("", self._name):
            problem = f"there is no model {wanted.model}: this is {self._name}"
            raise ApiError(404, "not_found_error", problem, parameter="model")
        await self._check(sets[0], field)
        tickets = self._submit(ids, sets)
        if wanted.stream:
            with_usage = wanted.stream_options is not None and wanted.stream_options.include_usage
            events = self._stream(tickets, form, with_usage)
            return EventStream(events, self._limits.reading, self._metrics.gave_up, lambda: self._cancel(tickets))
        finishing = asyncio.create_task(self._finish(tickets))
        gone = asyncio.create_task(_disconnected(request))
        try:
            await asyncio.wait([finishing, gone], return_when=asyncio.FIRST_COMPLETED)
            if not finishing.done():
                return Response(status_code=_CLIENT_GONE)
            await finishing
        finally:
            gone.cancel()
            finishing.cancel()
            self._cancel(tickets)
        return JSONResponse(form.whole([ticket.output for ticket in tickets if ticket.output]))

    async def _encoded(self, encode: Callable[..., list[int]], *args: Any, **kwargs: Any) -> list[int]:
        """A prompt's tokens, found beside the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._encoders, partial(encode, *args, **kwargs))

    async def _check(self, params: SamplingParams, field: str) -> None:
        """Before work starts. A grammar is compiled here, beside the event loop, and known when the engine asks."""
        if params.grammar is None:
            self._llm.check(params)
            return
        try:
            await asyncio.get_running_loop().run_in_executor(self._compilers, self._llm.check, params)
        except UsageError as error:
            raise ApiError(400, "invalid_request_error", str(error), parameter=field) from error

    def _submit(self, ids: list[int], sets: list[SamplingParams]) -> list[Ticket]:
        tickets: list[Ticket] = []
        try:
            for params in sets:
                tickets.append(self._scheduler.submit(ids, params))
        except OutriderError:
            self._cancel(tickets)
            raise
        return tickets

    def _cancel(self, tickets: list[Ticket]) -> None:
        for ticket in tickets:
            self._scheduler.cancel(ticket)

    async def _finish(self, tickets: list[Ticket]) -> None:
        for ticket in tickets:
            async for _ in self._scheduler.pieces(ticket):
                pass

    async def _stream(self, tickets: list[Ticket], form: Form, with_usage: bool) -> AsyncGenerator[str, None]:
        """Server-sent events. The answers of one request come as they are ready, whichever it is."""
        merged: asyncio.Queue[tuple[int, Piece | OutriderError | None]] = asyncio.Queue()

        async def follow(index: int, ticket: Ticket) -> None:
            try:
                async for piece in self._scheduler.pieces(ticket):
                    await merged.put((index, piece))
            except OutriderError as problem:
                await merged.put((index, problem))
            await merged.put((index, None))

        followers = [asyncio.create_task(follow(index, ticket)) for index, ticket in enumerate(tickets)]
        chunks = [Chunks(form, index) for index in range(len(tickets))]
        left = len(tickets)
        try:
            while left:
                index, piece = await merged.get()
                if piece is None:
                    left -= 1
                elif isinstance(piece, OutriderError):
                    kind = "invalid_request_error" if isinstance(piece, UsageError) else "server_error"
                    if isinstance(piece, TimedOutError):
                        kind = "timeout_error"
                        self._metrics.gave_up(piece.where)
                    yield event(_error_body(str(piece), kind))
                else:
                    yield event(chunks[index].next(piece))
            if with_usage and all(ticket.output for ticket in tickets):
                yield event(form.last_chunk([ticket.output for ticket in tickets if ticket.output]))
            yield "data: [DONE]\n\n"
        finally:
            for follower in followers:
                follower.cancel()

    # -- around every route ------------------------------------------------------------------------------------------

    def _guarded(self, handler: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        async def guarded(request: Request) -> Response:
            try:
                self._check_key(request)
                return await handler(request)
            except ApiError as problem:
                return problem.response()
            except TimedOutError as error:
                self._metrics.gave_up(error.where)
                return ApiError(error.status, "timeout_error", str(error)).response(self._scheduler.retry_after)
            except UnknownToolsError as error:
                return ApiError(400, "invalid_request_error", str(error), parameter="tools").response()
            except UsageError as error:
                return ApiError(400, "invalid_request_error", str(error)).response()
            except QueueFullError as error:
                self._metrics.gave_up("full")
                return ApiError(429, "rate_limit_error", str(error)).response(self._scheduler.retry_after)
            except OutriderError as error:
                return ApiError(503, "server_error", str(error)).response(self._scheduler.retry_after)
            except ClientDisconnect:
                return Response(status_code=_CLIENT_GONE)
            except Exception:
                _log.exception("%s failed", request.url.path)
                return ApiError(500, "server_error", "the request failed within the server: see its log").response()

        return guarded

    def _check_key(self, request: Request) -> None:
        if self._api_key is None:
            return
        given = request.headers.get("authorization", "").removeprefix("Bearer ").strip()
        if not hmac.compare_digest(given.encode(), self._api_key.encode()):
            raise ApiError(401, "authentication_error", "the API key is missing or wrong: send it as a bearer token")

    async def _read(self, request: Request, model: type[Model]) -> Model:
        body = bytearray()
        try:
            async with asyncio.timeout(self._limits.body):
                async for part in request.stream():
                    body += part
                    if len(body) > MAX_BODY_BYTES:
                        problem = f"the body is larger than {MAX_BODY_BYTES >> 20} MiB"
                        raise ApiError(413, "invalid_request_error", problem)
        except TimeoutError as error:
            self._metrics.gave_up("body")
            problem = f"the body was not there within {self._limits.body:g} seconds"
            raise ApiError(408, "timeout_error", problem) from error
        try:
            return model.model_validate(json.loads(bytes(body)))
        except (ValueError, RecursionError) as error:
            raise _explained(error) from error

    @contextlib.asynccontextmanager
    async def _lifespan(self, _app: Starlette) -> AsyncIterator[None]:
        self._scheduler.start()
        yield
        await run_in_threadpool(self._scheduler.stop, GRACE_SECONDS)
        for pool in (self._encoders, self._compilers):
            pool.shutdown(wait=False, cancel_futures=True)

    def _about(self) -> dict[str, Any]:
        return {
            "id": self._name,
            "object": "model",
            "created": 0,
            "owned_by": "outrider",
            "max_model_len": self._llm.context,
            "outrider": {
                "chat": self._llm.chat is not None,
                "drafters": [drafter.name for drafter in self._llm.engine.planner.drafters],
            },
        }


def _error_body(message: str, kind: str, parameter: str | None = None) -> dict[str, Any]:
    """A message may quote the request, and that what UTF-8 cannot write."""
    names = None if parameter is None else without_surrogates(parameter)
    return {"error": {"message": without_surrogates(message), "type": kind, "param": names, "code": None}}


def _explained(error: ValueError | RecursionError) -> ApiError:
    if not isinstance(error, ValidationError):
        return ApiError(400, "invalid_request_error", f"the body is not JSON: {error}")
    first = error.errors(include_url=False, include_context=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    return ApiError(400, "invalid_request_error", f"{place}: {message}" if place else message, parameter=place or None)


def _form_of(wanted: Sampled) -> tuple[str, Grammar | None]:
    try:
        return wanted.form()
    except (ValueError, UsageError) as error:
        raise ApiError(400, "invalid_request_error", str(error), parameter="response_format") from error


async def _no_such_route(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return ApiError(error.status_code, "invalid_request_error", str(error.detail)).response()


async def _disconnected(request: Request) -> None:
    while not await request.is_disconnected():
        await asyncio.sleep(0.1)
