"""Responses that are being generated, and those that are stored."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from outrider.engine.outputs import RequestOutput
from outrider.errors import OutriderError
from outrider.server.generation import Run
from outrider.server.host import Host
from outrider.server.model_set import Lease
from outrider.server.responses.events import ResponseWriter, as_text
from outrider.server.responses.items import Item
from outrider.server.responses.shapes import ResponseObject
from outrider.server.responses.store import ResponseStore, Stored


class CancelledByClientError(OutriderError):
    """A client cancelled the response."""


class Responses:
    """All responses of a server: those that are stored, and those that will be."""

    def __init__(self, store: ResponseStore) -> None:
        self.store = store
        self._live: dict[tuple[bytes, str], LiveResponse] = {}

    def live(self, scope: bytes, response: str) -> LiveResponse | None:
        """A response of this scope that is being generated."""
        return self._live.get((scope, response))

    @contextlib.contextmanager
    def being_generated(self, scope: bytes, live: LiveResponse) -> Iterator[None]:
        """Within it, `live` finds the response."""
        self._live[scope, live.response.id] = live
        try:
            yield
        finally:
            del self._live[scope, live.response.id]

    async def stop(self) -> None:
        """Waits for the responses in the background; the scheduler has ended their jobs."""
        for live in list(self._live.values()):
            await live.finish()


@dataclass(frozen=True)
class Keeping:
    """Where a response is kept.

    scope: see `ApiKeys.scope`. input: its own items.
    """

    responses: Responses
    scope: bytes
    input: Sequence[Item]

    async def keep(self, response: ResponseObject) -> None:
        """Stores a finished response."""
        stored = Stored(response.model_dump(), list(self.input), response.previous_response_id)
        await asyncio.to_thread(self.responses.store.put, self.scope, stored)

    async def forget(self, response: ResponseObject) -> None:
        """Removes it again."""
        await asyncio.to_thread(self.responses.store.delete, self.scope, response.id)


class LiveResponse:
    """A response that is being generated.

    Args:
        keeping: None if it is not stored.
    """

    def __init__(self, host: Host, run: Run, writer: ResponseWriter, keeping: Keeping | None) -> None:
        self._host, self._run, self._writer, self._keeping = host, run, writer, keeping
        self._cancelled = self._dropped = self._over = False
        self.stored = False
        self._events: list[dict[str, Any]] = []  # of a response in the background
        self._changed = asyncio.Condition()
        self._task: asyncio.Task[None] | None = None

    @property
    def response(self) -> ResponseObject:
        """The response so far."""
        return self._writer.response

    @property
    def in_background(self) -> bool:
        """Whether it goes on without its client."""
        return self._task is not None

    async def whole(self, out: RequestOutput) -> ResponseObject:
        """The response of a finished answer."""
        for _ in (*self._writer.push(out.text, out.logprobs), *self._writer.end(out)):
            pass
        await self._keep()
        return self.response

    async def stream(self) -> AsyncGenerator[str, None]:
        """The events for a client whose leaving cancels the run."""
        async with contextlib.aclosing(self._generate()) as events:
            async for event in events:
                yield as_text(event)

    def start(self, lease: Lease) -> None:
        """Generates it in the background; the lease ends with it."""
        self._task = asyncio.create_task(self._collect(lease))

    async def follow(self, after: int = -1) -> AsyncGenerator[str, None]:
        """The events of a response in the background, after the one with this number."""
        assert self._task is not None
        for at in itertools.count(max(after, -1) + 1):
            async with self._changed:
                while at >= len(self._events) and not self._over:
                    await self._changed.wait()
            if at >= len(self._events):
                return
            yield as_text(self._events[at])

    async def finish(self) -> None:
        """Waits for its end, if it is in the background."""
        if self._task is not None:
            await self._task

    def cancel(self) -> None:
        """Ends it; its slot is free before the next pass."""
        if self.response.status == "in_progress":
            self._cancelled, self.response.status = True, "cancelled"
            self._run.abort(CancelledByClientError("the response was cancelled"))

    def drop(self) -> None:
        """Ends it, and does not store it."""
        self._dropped = True
        self.cancel()

    async def _collect(self, lease: Lease) -> None:
        try:
            async for event in self._generate():
                async with self._changed:
                    self._events.append(event)
                    self._changed.notify_all()
        finally:
            lease.end()
            async with self._changed:
                self._over = True
                self._changed.notify_all()

    async def _generate(self) -> AsyncGenerator[dict[str, Any], None]:
        keeping, writer = self._keeping, self._writer
        with keeping.responses.being_generated(keeping.scope, self) if keeping else contextlib.nullcontext():
            for event in writer.begin():
                yield event
            try:
                async with contextlib.aclosing(self._run.pieces()) as pieces:
                    async for _, piece in pieces:
                        for event in writer.push(piece.text, piece.logprobs):
                            yield event
                if self._cancelled:  # its last piece came before
                    raise CancelledByClientError
                for event in writer.end(*self._run.outputs):
                    yield event
            except CancelledByClientError:
                for event in writer.cancel():
                    yield event
            except Exception as error:
                for event in writer.fail(self._host.error(error)):
                    yield event
            await self._keep()
            yield writer.last()

    async def _keep(self) -> None:
        if self._keeping is not None and not self._dropped:
            await self._keeping.keep(self.response)
            self.stored = True
            if self._dropped:  # meanwhile
                await self._keeping.forget(self.response)
