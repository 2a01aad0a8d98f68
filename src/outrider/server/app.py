"""The routes. Every error has OpenAI's shape; nothing in a request is trusted."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from outrider import LLM, SamplingParams
from outrider.chat.markers import UnknownToolsError
from outrider.engine.outputs import Piece
from outrider.errors import OutriderError, UsageError
from outrider.server.accepting import report_seldom
from outrider.server.answers import Chunks, Form
from outrider.server.event_stream import EventStream, event
from outrider.server.keys import ApiKeys, scope_of
from outrider.server.limits import Limits, TimedOutError
from outrider.server.metrics import Metrics
from outrider.server.openapi import describe
from outrider.server.origins import LoopbackOnly
from outrider.server.page import page_routes
from outrider.server.preparing import Prepared, Preparer, Scope
from outrider.server.problems import ApiError, error_body
from outrider.server.scheduler import QueueFullError, Scheduler, Ticket

_log = logging.getLogger("outrider.server")

MAX_BODY_BYTES = 8 << 20
_ENCODERS, _COMPILERS = 2, 4
"""Requests that are read and encoded, and grammars that are compiled, at once: either may take some hundred times its
size, and the system's allocator keeps that for each thread that ever did so."""
_CLIENT_GONE = 499
"""Nobody reads it; the number is nginx's."""

Result = TypeVar("Result")


class Server:
    """The application around one model.

    Args:
        name: what clients call the model.
        keys: of which clients have to send one as bearer token.
        limits: the scheduler's.
        loopback: the host's name, if it listens on loopback alone: without keys, web pages are kept out then.
        ignore_media: put "[image]" and the like in the place of what a message holds besides text.
    """

    def __init__(
        self,
        llm: LLM,
        scheduler: Scheduler,
        metrics: Metrics,
        *,
        name: str,
        keys: ApiKeys | None = None,
        limits: Limits | None = None,
        loopback: str | None = None,
        ignore_media: bool = False,
    ) -> None:
        self._parts, self._scheduler, self._metrics = llm.parts, scheduler, metrics
        self._name, self._keys, self._limits = name, keys or ApiKeys(), limits or Limits()
        self._loopback = None if self._keys else loopback
        self._description = describe(keyed=bool(self._keys))
        self._preparer = Preparer(llm, name, ignore_media=ignore_media)
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
        guards = [] if self._loopback is None else [Middleware(LoopbackOnly, host=self._loopback)]
        handlers: Any = {HTTPException: _no_such_route}
        return Starlette(routes=routes, lifespan=self._lifespan, exception_handlers=handlers, middleware=guards)

    async def completions(self, request: Request) -> Response:
        """`POST /v1/completions`: the text goes on from the prompt."""
        return await self._answer(request, self._preparer.completion)

    async def chat(self, request: Request) -> Response:
        """`POST /v1/chat/completions`: the model's next turn."""
        return await self._answer(request, self._preparer.chat)

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
        return Response(self._metrics.text(self._scheduler, self._parts.caches), media_type="text/plain; version=0.0.4")

    async def description(self, _request: Request) -> Response:
        """`GET /openapi.json`."""
        return JSONResponse(self._description)

    # -- the life of an answer ---------------------------------------------------------------------------------------

    async def _answer(self, request: Request, prepare: Callable[[bytes, Scope], Prepared]) -> Response:
        body = await self._read(request)
        prepared = await self._aside(self._encoders, prepare, body, partial(scope_of, self._key_of(request)))
        for grammar in prepared.grammars:
            await self._compile(SamplingParams(grammar=grammar), prepared.field)
        form, tickets = prepared.form, self._submit(prepared.ids, prepared.sets)
        if prepared.stream:
            events = self._stream(tickets, form, prepared.with_usage)
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

    async def _aside(self, pool: ThreadPoolExecutor, function: Callable[..., Result], *args: Any) -> Result:
        """The result of something that takes long, found beside the event loop."""
        return await asyncio.get_running_loop().run_in_executor(pool, partial(function, *args))

    async def _compile(self, params: SamplingParams, field: str) -> None:
        """Before work starts: the engine finds the grammar compiled."""
        try:
            await self._aside(self._compilers, self._parts.prompts.check, params)
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
                    yield event(error_body(str(piece), kind))
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
                self._key_of(request)
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
                return ApiError(500, "server_error", "internal server error; see the server log").response()

        return guarded

    def _key_of(self, request: Request) -> int | None:
        """Which of the keys a request has; None if the server has none."""
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        given = given.strip() if scheme.lower() == "bearer" else ""
        key = self._keys.index(given.encode("latin-1"))  # the header's bytes
        if self._keys and key is None:
            raise ApiError(401, "authentication_error", "the API key is missing or wrong: send it as a bearer token")
        return key

    async def _read(self, request: Request) -> bytes:
        kind = request.headers.get("content-type", "")
        if kind.partition(";")[0].strip().lower() != "application/json":
            problem = f"the Content-Type is {kind!r}: send JSON, as application/json"
            raise ApiError(415, "invalid_request_error", problem)
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
        return bytes(body)

    @contextlib.asynccontextmanager
    async def _lifespan(self, _app: Starlette) -> AsyncIterator[None]:
        report_seldom(asyncio.get_running_loop())
        self._scheduler.start()
        yield
        await run_in_threadpool(self._scheduler.stop)
        for pool in (self._encoders, self._compilers):
            pool.shutdown(wait=False, cancel_futures=True)

    def _about(self) -> dict[str, Any]:
        return {
            "id": self._name,
            "object": "model",
            "created": 0,
            "owned_by": "outrider",
            "max_model_len": self._parts.context,
            "outrider": {
                "chat": self._parts.chat is not None,
                "drafters": self._parts.engine.planner.sources,
            },
        }


async def _no_such_route(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return ApiError(error.status_code, "invalid_request_error", str(error.detail)).response()


async def _disconnected(request: Request) -> None:
    while not await request.is_disconnected():
        await asyncio.sleep(0.1)
