"""Server-sent events to a client that may stop reading."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from typing import Any

from starlette.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send


class EventStream(StreamingResponse):
    """A stream that ends when its client takes nothing for a while.

    What a client does not read fills its socket; then one event waits here, and the rest of the answer, which is no
    longer than `max_tokens`, behind it. So a client that reads slowly holds up nobody, and one that does not read at
    all loses its place.

    Args:
        events: closed when the stream ends, however it does.
        seconds: that one event may wait to be taken; None for ever.
        gave_up: told "reader" when it was not.
        end: called when it is over, however: a generator whose first event nobody waited for has no end of its own.
    """

    def __init__(
        self,
        events: AsyncGenerator[str, None],
        seconds: float | None,
        gave_up: Callable[[str], None],
        end: Callable[[], None],
    ) -> None:
        super().__init__(events, media_type="text/event-stream")
        self._events, self._seconds, self._gave_up, self._end = events, seconds, gave_up, end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._end()
            await self._events.aclose()

    async def stream_response(self, send: Send) -> None:
        """Sends it all, or as much as is taken."""

        async def in_time(message: Message) -> None:
            async with asyncio.timeout(self._seconds):
                await send(message)

        try:
            await super().stream_response(in_time)
        except TimeoutError:
            self._gave_up("reader")
            raise OSError("the client stopped reading") from None  # closes its connection


def event(body: dict[str, Any]) -> str:
    """One event."""
    return f"data: {json.dumps(body, ensure_ascii=False)}\n\n"
