"""How a request comes to a route: its key, its body, its errors."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any, TypeVar

from fastapi import Request
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response

from outrider.engine.outputs import RequestOutput
from outrider.server.errors import ApiError
from outrider.server.event_stream import EventStream
from outrider.server.fields import Fields
from outrider.server.generation import Run
from outrider.server.host import Host
from outrider.server.model_set import Lease, ModelSet
from outrider.server.service import Service

MAX_BODY_BYTES = 8 << 20
_CLIENT_GONE = 499
"""nginx's status for a client that left; nobody reads it."""
_SOON_SECONDS = 1.0
"""How long a stream's headers wait for a model that is being loaded; then they are sent, and comments after them."""
_RETRY_SECONDS = 5
"""`Retry-After` of a model that is not loaded."""

Asked = TypeVar("Asked", bound=Fields)
Result = TypeVar("Result")


class Call(Request):
    """A request to a route."""

    @property
    def models(self) -> ModelSet:
        """All models of the server."""
        models: ModelSet = self.app.state.models
        return models

    @property
    def host(self) -> Host:
        """What they share."""
        return self.models.host

    @property
    def lease(self) -> Lease | None:
        """Of the model that it is for, once that is loaded; None on routes that are for none."""
        return getattr(self.state, "lease", None)

    @property
    def service(self) -> Service:
        """The model that it is for."""
        assert self.lease is not None
        return self.lease.service

    @property
    def retry_after(self) -> int:
        """Seconds after which to try again."""
        service = None if self.lease is None else self.lease.slot.service
        return _RETRY_SECONDS if service is None else service.scheduler.retry_after

    @property
    def key(self) -> int | None:
        """The number of its API key; None if the server has none.

        Raises:
            ApiError: the key is missing or wrong.
        """
        keys = self.host.keys
        scheme, _, token = self.headers.get("authorization", "").partition(" ")
        token = token.strip() if scheme.lower() == "bearer" else self.headers.get("x-api-key", "")
        key = keys.index(token.encode("latin-1"))  # the header's bytes
        if keys and key is None:
            message = "the API key is missing or wrong: send it as a bearer token or as x-api-key"
            raise ApiError(401, message, kind="authentication_error", code="invalid_api_key")
        return key

    def cache_salt(self, salt: str | None) -> str:
        """The `SamplingParams.cache_salt` of its jobs, from the salt that it gives."""
        return self.host.keys.scope(self.key, salt or "").hex()

    async def parse(self, model: type[Asked]) -> Asked:
        """Its body, checked in a worker thread.

        Raises:
            ApiError: it is not JSON, too large, too slow, or not what the model describes.
        """
        kind = self.headers.get("content-type", "")
        if kind.partition(";")[0].strip().lower() != "application/json":
            raise ApiError(415, f"the Content-Type is {kind!r}: send JSON, as application/json")
        return await self.host.in_thread(_parsed, await self._read(), model)

    async def _read(self) -> bytes:
        body, seconds = bytearray(), self.host.limits.body
        try:
            async with asyncio.timeout(seconds):
                async for part in self.stream():
                    body += part
                    if len(body) > MAX_BODY_BYTES:
                        raise ApiError(413, f"the body is larger than {MAX_BODY_BYTES >> 20} MiB")
        except TimeoutError as error:
            message = f"the body did not arrive within {seconds:g} seconds"
            raise ApiError(408, message, kind="timeout_error", limit="body") from error
        return bytes(body)

    async def outputs(self, run: Run) -> list[RequestOutput]:
        """The whole answers; cancels the run if the client leaves before.

        Raises:
            ClientDisconnect: it left.
            OutriderError: a job failed.
        """
        self.state.run = run
        try:
            return await self.while_connected(run.finish())
        finally:
            run.cancel()

    async def while_connected(self, work: Coroutine[Any, Any, Result]) -> Result:
        """What a coroutine returns; cancels it if the client leaves before.

        Raises:
            ClientDisconnect: it left. That is received once, so what comes after would not learn of it.
        """
        working, leaving = asyncio.create_task(work), asyncio.create_task(self._left())
        try:
            await asyncio.wait([working, leaving], return_when=asyncio.FIRST_COMPLETED)
            if leaving.done():
                raise ClientDisconnect
            return await working
        finally:
            leaving.cancel()
            working.cancel()

    async def _left(self) -> None:
        while not await self.is_disconnected():
            await asyncio.sleep(0.1)


class ApiRoute(APIRoute):
    """A route that calls its endpoint with `call`, the path's parameters, and `asked`, the body.

    FastAPI describes it from the endpoint's signature. It does not read the body: FastAPI parses and checks that in
    the event loop, where one large body would delay all streams.

    An API with error forms of its own is a subclass.
    """

    keyed = True
    """Whether it needs an API key where the server has one."""

    @staticmethod
    def error_body(error: ApiError) -> dict[str, Any]:
        """An error as OpenAI writes it."""
        return {"error": {"message": str(error), "type": error.kind, "param": error.param, "code": error.code}}

    @classmethod
    def error_event(cls, error: ApiError) -> str:
        """The end of a stream that fails."""
        return f"data: {json.dumps(cls.error_body(error), ensure_ascii=False)}\n\ndata: [DONE]\n\n"

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """See the class."""

        async def handle(request: Request) -> Response:
            call = Call(request.scope, request.receive)
            try:
                if self.keyed:
                    _ = call.key
                arguments = dict(call.path_params)
                if self.body_field is not None:
                    model: Any = self.body_field.field_info.annotation
                    arguments["asked"] = await call.parse(model)
                return await self._answer(call, arguments)
            except ClientDisconnect:
                return Response(status_code=_CLIENT_GONE)
            except Exception as error:
                return error_response(call, call.host.error(error), self.error_body)

        return handle

    async def _answer(self, call: Call, arguments: dict[str, Any]) -> Response:
        """The endpoint's response. The model that a body names is loaded before."""
        asked = arguments.get("asked")
        if asked is None:
            return await self._response(call, arguments)
        with call.models.lease(asked.model) as lease:
            if not lease.take():
                if not getattr(asked, "stream", False):
                    await call.while_connected(lease.ready())
                elif not await _is_soon_ready(lease):
                    return EventStream(call, None, self._after_loading(call, arguments))
            call.state.lease = lease
            return await self._response(call, arguments)

    async def _after_loading(self, call: Call, arguments: dict[str, Any]) -> AsyncGenerator[str, None]:
        """The events of a stream that began before its model was loaded."""
        with call.models.lease(arguments["asked"].model) as lease:
            await lease.ready()
            call.state.lease = lease
            response = await self._response(call, arguments)
            assert isinstance(response, EventStream)
            async with contextlib.aclosing(response.events()) as events:
                async for event in events:
                    yield event

    async def _response(self, call: Call, arguments: dict[str, Any]) -> Response:
        response: Response = await self.endpoint(call=call, **arguments)
        return response


async def _is_soon_ready(lease: Lease) -> bool:
    """Waits a moment for a model, so that what fails at once is an error with a status and not an event."""
    try:
        async with asyncio.timeout(_SOON_SECONDS):
            await lease.ready()
    except TimeoutError:
        return False
    return True


class OpenRoute(ApiRoute):
    """A route without an API key."""

    keyed = False


def error_response(
    call: Call, error: ApiError, form: Callable[[ApiError], dict[str, Any]] = ApiRoute.error_body
) -> Response:
    """An error in an API's form. A server that drains closes the connection, so that the next request finds another."""
    headers = {"Retry-After": str(call.retry_after)} if error.retry else {}
    if call.models.draining:
        headers["Connection"] = "close"
    return JSONResponse(form(error), error.status, headers)


def json_response(body: BaseModel) -> Response:
    """A response model as it is."""
    return Response(body.model_dump_json(), media_type="application/json")


def _parsed(body: bytes, model: type[Asked]) -> Asked:
    try:
        return model.checked(json.loads(body))
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ApiError(400, f"the body is not JSON: {error}") from error
    except ValueError as error:  # Python's limit
        raise ApiError(400, "the body has a number with more than 4300 digits") from error
