"""The thread that steps the engine, and the tickets by which others follow their requests."""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from outrider import LLM, SamplingParams
from outrider.engine.outputs import Piece, RequestOutput
from outrider.engine.request import Request
from outrider.errors import OutriderError, UsageError
from outrider.server.limits import Limits, TimedOutError

_log = logging.getLogger("outrider.server")
_IDLE_SECONDS = 0.5
_FIRST_GUESS, _SHORTEST_WAIT, _LONGEST_WAIT = 5.0, 1, 60
"""Seconds: what a request is taken to run before one has ended, and the ends of `retry_after`."""


_SHUTTING_DOWN = "the server is shutting down: send the request again later"


class QueueFullError(OutriderError):
    """So many requests wait that another would only time out."""


class StoppedError(OutriderError):
    """The server is shutting down, or a request failed within."""


@dataclass(eq=False)
class Ticket:
    """One request on its way through the scheduler. Its pieces arrive in the event loop that submitted it."""

    prompt: list[int]
    params: SamplingParams
    loop: asyncio.AbstractEventLoop
    pieces: asyncio.Queue[Piece | OutriderError] = field(default_factory=asyncio.Queue)
    arrived: float = field(default_factory=time.perf_counter)
    began: float | None = None
    request: Request | None = None
    output: RequestOutput | None = None
    cancelled: bool = False

    def give(self, piece: Piece | OutriderError) -> None:
        """Hands over what came; called by the scheduler's thread."""
        self.loop.call_soon_threadsafe(self.pieces.put_nowait, piece)


class Scheduler:
    """Runs requests side by side, so many at a time, and keeps so many waiting.

    Only its own thread touches the engine. Requests join and leave between passes.

    Args:
        running: most requests in a pass.
        waiting: most requests that wait for a place; beyond, `submit` refuses.
        limits: how long they may wait and run.
        finished: told of every ticket that ended, in the scheduler's thread.
    """

    def __init__(
        self,
        llm: LLM,
        *,
        running: int = 8,
        waiting: int = 64,
        limits: Limits | None = None,
        finished: Callable[[Ticket], None] = lambda _: None,
    ) -> None:
        self._engine, self._finished = llm.parts.engine, finished
        self._most_running, self._most_waiting = running, waiting
        self._limits = limits or Limits()
        self._usual_seconds = _FIRST_GUESS  # that a request runs
        self._waiting: deque[Ticket] = deque()
        self._joining: list[Ticket] = []  # out of the queue, and not in a pass yet
        self._running: list[Ticket] = []
        self._changed = threading.Condition()
        self._stopping = False
        self._until = math.inf  # by the monotonic clock: then all that is left ends
        self._thread = threading.Thread(target=self._run, name="outrider-engine", daemon=True)

    def start(self) -> None:
        """Begins to work."""
        self._thread.start()

    def drain(self) -> None:
        """Takes no more requests. Those in work may end within `Limits.stopping`; what is left then is ended before the
        next pass, and the thread with it.

        Takes no lock, since signal handlers call it: the main thread may hold the lock at that moment.
        """
        if not self._stopping:
            self._until = time.monotonic() + self._limits.stopping
            self._stopping = True

    def stop(self) -> None:
        """As `drain`, and waits for the thread."""
        self.drain()
        with self._changed:
            self._changed.notify_all()
        self._thread.join()

    @property
    def counts(self) -> tuple[int, int]:
        """Requests running, or about to, and waiting."""
        with self._changed:
            return len(self._joining) + len(self._running), len(self._waiting)

    @property
    def retry_after(self) -> int:
        """Seconds until a place in the queue is likely to be free, by what requests took lately."""
        expected = self._usual_seconds / self._most_running
        return int(min(max(round(expected), _SHORTEST_WAIT), _LONGEST_WAIT))

    def submit(self, prompt: list[int], params: SamplingParams) -> Ticket:
        """Takes a request in; to be called from the event loop that awaits its pieces.

        Raises:
            QueueFullError: too many wait.
            StoppedError: the server is shutting down.
        """
        ticket = Ticket(prompt, params, asyncio.get_running_loop())
        with self._changed:
            if self._stopping:
                raise StoppedError(_SHUTTING_DOWN)
            free = self._most_running - len(self._joining) - len(self._running)
            if len(self._waiting) >= self._most_waiting + free:
                raise QueueFullError(f"{len(self._waiting)} requests wait already: try again in a few seconds")
            self._waiting.append(ticket)
            self._changed.notify_all()
        return ticket

    def cancel(self, ticket: Ticket) -> None:
        """Ends a request; its place is free before the next pass."""
        with self._changed:
            ticket.cancelled = True
            if ticket in self._waiting:
                self._waiting.remove(ticket)
            self._changed.notify_all()

    async def pieces(self, ticket: Ticket) -> AsyncIterator[Piece]:
        """The answer as it comes. Leaving early cancels the request.

        Raises:
            OutriderError: the request failed.
        """
        try:
            while True:
                piece = await ticket.pieces.get()
                if isinstance(piece, OutriderError):
                    raise piece
                yield piece
                if piece.finish_reason is not None:
                    return
        finally:
            self.cancel(ticket)

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._running and not self._waiting and not self._stopping:
                    self._changed.wait(_IDLE_SECONDS)
                if self._stopping and not self._running and not self._waiting:
                    return
                self._expire_waiting()
                self._join()
            if time.monotonic() >= self._until:
                self._abandon_all()
            for ticket in [t for t in self._running if t.cancelled]:
                self._leave(ticket)
            self._expire_running()
            for ticket in list(self._joining):
                self._begin(ticket)
            try:
                self._engine.step()
            except Exception as error:
                # What broke a pass is not known to belong to one request: all in it end, the server goes on.
                _log.exception("a pass failed")
                for ticket in list(self._running):
                    ticket.give(StoppedError(f"the pass failed: {error}"))
                    self._leave(ticket)
                continue
            for ticket in list(self._running):
                self._deliver(ticket)

    def _expire_waiting(self) -> None:
        limit = self._limits.waiting
        while limit is not None and self._waiting and time.perf_counter() - self._waiting[0].arrived > limit:
            words = f"the request waited {limit:g} seconds for a place: try again later"
            self._waiting.popleft().give(TimedOutError(words, status=503, where="queue"))

    def _expire_running(self) -> None:
        limit, now = self._limits.running, time.perf_counter()
        for ticket in list(self._running):
            if limit is not None and ticket.began is not None and now - ticket.began > limit:
                self._leave(ticket)
                words = f"the request ran for {limit:g} seconds: ask for fewer tokens"
                ticket.give(TimedOutError(words, status=504, where="run"))

    def _join(self) -> None:
        while self._waiting and len(self._running) + len(self._joining) < self._most_running:
            self._joining.append(self._waiting.popleft())

    def _begin(self, ticket: Ticket) -> None:
        began = False
        try:
            if not ticket.cancelled:
                ticket.request = self._engine.add(list(ticket.prompt), ticket.params)
                ticket.began, began = time.perf_counter(), True
        except Exception as error:
            _log.exception("a request could not start")
            ticket.give(StoppedError(f"the request could not start: {error}"))
        with self._changed:  # at no time in neither, or another would be let in for it
            self._joining.remove(ticket)
            self._running += [ticket] if began else []

    def _deliver(self, ticket: Ticket) -> None:
        assert ticket.request is not None
        if ticket.request.error is not None:
            self._leave(ticket)
            ticket.give(StoppedError(f"internal server error: {ticket.request.error}"))
            return
        piece = ticket.request.take_piece()
        if piece.finish_reason is not None:
            ticket.output = ticket.request.output()
            self._leave(ticket)
            if ticket.began is not None:
                self._usual_seconds += 0.2 * (time.perf_counter() - ticket.began - self._usual_seconds)
        if ticket.request.problem is not None:
            ticket.give(UsageError(f"the grammar cannot go on: {ticket.request.problem}"))
        elif piece.token_ids or piece.text or piece.finish_reason is not None:
            ticket.give(piece)

    def _leave(self, ticket: Ticket) -> None:
        assert ticket.request is not None
        self._engine.cancel(ticket.request)
        self._running.remove(ticket)
        self._finished(ticket)

    def _abandon_all(self) -> None:
        """Ends what is left: the time that a stop may take is over."""
        running = list(self._running)
        with self._changed:
            left = [*running, *self._joining, *self._waiting]
            self._joining.clear()
            self._waiting.clear()
        for ticket in running:
            self._leave(ticket)
        for ticket in left:
            ticket.give(StoppedError(_SHUTTING_DOWN))
