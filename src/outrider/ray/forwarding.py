"""HTTP over Ray: a request goes to a replica as plain data, and its answer comes back as ASGI messages."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from typing import Any

from ray.exceptions import RayActorError, RayError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle
from starlette.datastructures import Headers
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from outrider.ray.affinity import prefix_key
from outrider.server.access import HEADER
from outrider.server.anthropic.routes import AnthropicRoute
from outrider.server.errors import ApiError
from outrider.server.route import MAX_BODY_BYTES, ApiRoute

_ID = HEADER.lower().encode()
"""Ray's proxy sets it too, to the same value."""
_SESSION = "X-Session-Id"
"""A client's own key, as Ray calls it: in place of the one that its prompt has."""
_SENT = ("type", "method", "scheme", "path", "query_string", "root_path", "headers", "client", "server")
_ENDED = ApiError(503, "the replica that answered has ended: send the request again", kind="server_error")
_log = logging.getLogger("outrider.ray")
_answering: set[asyncio.Task[None]] = set()


class Forwarded(Response):
    """The response of a replica.

    Args:
        models: the deployment; its `answer` takes a key, a scope and a body, and yields ASGI messages.
    """

    def __init__(self, models: DeploymentHandle[Any]) -> None:
        self._answer = models.options(method_name="answer", stream=True)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await _read(receive)
        key = Headers(scope=scope).get(_SESSION) or prefix_key(body)
        sent = {name: scope[name] for name in _SENT if name in scope}
        for last in (False, True):
            start = None
            try:
                async for message in self._answer.remote(key, sent, body):
                    if start is None:
                        start = {**message, "headers": [each for each in message["headers"] if each[0].lower() != _ID]}
                        await send(start)
                    else:
                        await send(message)
                return
            except (RayError, RayServeException) as error:
                _log.warning("a request failed: %s", error)
                if start is None and isinstance(error, RayActorError) and not last:
                    continue  # Ray leaves out a replica that has ended; the client has nothing of the answer yet
                await _fail(start, scope, receive, send)
                return


async def _fail(start: Message | None, scope: Scope, receive: Receive, send: Send) -> None:
    """Tells a client that its replica has ended; a whole answer that has begun can only be cut off."""
    form = AnthropicRoute if scope["path"].startswith("/v1/messages") else ApiRoute
    if start is None:
        response = JSONResponse(form.error_body(_ENDED), _ENDED.status, {"Retry-After": "1"})
        await response(scope, receive, send)
    elif any(value.startswith(b"text/event-stream") for _, value in start["headers"]):
        await send({"type": "http.response.body", "body": form.error_event(_ENDED).encode()})
    else:
        raise ConnectionError(str(_ENDED))


async def _read(receive: Receive) -> bytes:
    """A body, or as much of it as shows a replica that it is too large."""
    body, more = bytearray(), True
    while more and len(body) <= MAX_BODY_BYTES:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return bytes(body)


async def answer(app: ASGIApp, scope: dict[str, Any], body: bytes) -> AsyncGenerator[Message, None]:
    """What an application sends. When this is closed, it sees that its client has left."""
    messages: asyncio.Queue[Message | None] = asyncio.Queue()
    left, parts = asyncio.Event(), [body]

    async def receive() -> Message:
        if parts:
            return {"type": "http.request", "body": parts.pop(), "more_body": False}
        await left.wait()
        return {"type": "http.disconnect"}

    async def run() -> None:
        try:
            await app(scope, receive, messages.put)
        finally:
            messages.put_nowait(None)

    task = asyncio.create_task(run())
    _answering.add(task)  # the event loop alone would not keep it
    task.add_done_callback(_answering.discard)
    try:
        while (message := await messages.get()) is not None:
            yield message
        await task
    finally:
        left.set()
