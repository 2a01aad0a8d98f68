"""Server-sent events to a client that may stop reading."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING

from pydantic import BaseModel
from starlette.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from outrider.server.generation import Run

if TYPE_CHECKING:
    from outrider.server.route import Call


COMMENT_SECONDS = 5.0
"""A stream without an event for so long gets a comment: clients and proxies close connections that are silent."""
_COMMENT = ": waiting\n\n"
_LINE_ENDS = str.maketrans({ord(end): f"\\u{ord(end):04x}" for end in "\x85\u2028\u2029"})
"""JSON may have these unescaped; some clients end a line at them, in the midst of an event."""


class EventStream(StreamingResponse):
    """Sends the events of a run, the headers at once. One that fails ends with an error event in the route's form. The
    call's model stays loaded until the end.

    What a client does not read fills its socket; then one event waits here, and the rest of the answer, at most
    `max_tokens`, behind it. A slow client delays nobody else; one that does not read loses its connection.

    Args:
        run: cancelled when the stream ends; None for one that goes on without its client.
        events: closed when the stream ends, for whatever reason.
    """

    def __init__(self, call: Call, run: Run | None, events: AsyncGenerator[str, None]) -> None:
        self._call, self._run, self._events = call, run, events
        self._lease = None if call.lease is None else call.lease.again()
        call.state.run = run
        self._next: asyncio.Future[str] | None = None
        super().__init__(self._sent(), media_type="text/event-stream", headers={"Cache-Control": "no-cache"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            if self._next is not None:
                self._next.cancel()
                await asyncio.gather(self._next, return_exceptions=True)  # it may have ended meanwhile
            await self._end()

    async def events(self) -> AsyncGenerator[str, None]:
        """The events alone, for a stream that sends them in this one's place."""
        try:
            async for event in self._events:
                yield event
        finally:
            await self._end()

    async def _end(self) -> None:
        if self._run is not None:
            self._run.cancel()  # a generator that was never started runs no `finally` of its own
        if self._lease is not None:
            self._lease.end()
        await self._events.aclose()

    async def stream_response(self, send: Send) -> None:
        """Sends all events, or as many as the client reads in time."""

        async def in_time(message: Message) -> None:
            async with asyncio.timeout(self._call.host.limits.reading):
                await send(message)

        try:
            await super().stream_response(in_time)
        except TimeoutError:
            self._call.host.metrics.exceeded("reader")
            raise OSError("the client stopped reading") from None  # closes its connection

    async def _sent(self) -> AsyncGenerator[str, None]:
        try:
            while True:
                self._next = asyncio.ensure_future(anext(self._events))
                while not (await asyncio.wait([self._next], timeout=COMMENT_SECONDS))[0]:
                    yield _COMMENT
                yield self._next.result().translate(_LINE_ENDS)
        except StopAsyncIteration:
            pass
        except Exception as error:
            yield self._call.scope["route"].error_event(self._call.host.error(error))


def event(data: BaseModel) -> str:
    """One event."""
    return f"data: {data.model_dump_json()}\n\n"
