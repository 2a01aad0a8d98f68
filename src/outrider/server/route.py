"""How a request comes to a route: its key, its body, its errors."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from fastapi import Request
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response

from outrider.engine.outputs import RequestOutput
from outrider.server.errors import ApiError
from outrider.server.fields import Fields
from outrider.server.generation import Run
from outrider.server.service import Service

MAX_BODY_BYTES = 8 << 20
_CLIENT_GONE = 499
"""nginx's status for a client that left; nobody reads it."""

Asked = TypeVar("Asked", bound=Fields)
Result = TypeVar("Result")


class Call(Request):
    """A request to a route."""

    @property
    def service(self) -> Service:
        """The model that it is for."""
        service: Service = self.app.state.service
        return service

    @property
    def key(self) -> int | None:
        """The number of its API key; None if the server has none.

        Raises:
            ApiError: the key is missing or wrong.
        """
        keys = self.service.keys
        scheme, _, token = self.headers.get("authorization", "").partition(" ")
        token = token.strip() if scheme.lower() == "bearer" else self.headers.get("x-api-key", "")
        key = keys.index(token.encode("latin-1"))  # the header's bytes
        if keys and key is None:
            message = "the API key is missing or wrong: send it as a bearer token or as x-api-key"
            raise ApiError(401, message, kind="authentication_error", code="invalid_api_key")
        return key

    def cache_salt(self, salt: str | None) -> str:
        """The `SamplingParams.cache_salt` of its jobs, from the salt that it gives."""
        return self.service.keys.scope(self.key, salt or "").hex()

    async def parse(self, model: type[Asked]) -> Asked:
        """Its body, checked in a worker thread.

        Raises:
            ApiError: it is not JSON, too large, too slow, or not what the model describes.
        """
        kind = self.headers.get("content-type", "")
        if kind.partition(";")[0].strip().lower() != "application/json":
            raise ApiError(415, f"the Content-Type is {kind!r}: send JSON, as application/json")
        return await self.service.in_thread(_parsed, await self._read(), model)

    async def _read(self) -> bytes:
        body, seconds = bytearray(), self.service.limits.body
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
                response: Response = await self.endpoint(call=call, **arguments)
            except ClientDisconnect:
                return Response(status_code=_CLIENT_GONE)
            except Exception as error:
                return error_response(call.service, call.service.error(error), self.error_body)
            return response

        return handle


class OpenRoute(ApiRoute):
    """A route without an API key."""

    keyed = False


def error_response(
    service: Service, error: ApiError, form: Callable[[ApiError], dict[str, Any]] = ApiRoute.error_body
) -> Response:
    """An error in an API's form. A server that drains closes the connection, so that the next request finds another."""
    headers = {"Retry-After": str(service.scheduler.retry_after)} if error.retry else {}
    if service.scheduler.draining:
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
