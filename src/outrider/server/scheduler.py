"""The thread that steps the engine, and its queue of jobs."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TypeVar

from outrider import LLM, SamplingParams
from outrider.engine.outputs import Piece, RequestOutput
from outrider.engine.request import Request
from outrider.errors import OutriderError, UsageError
from outrider.server.errors import ApiError
from outrider.server.limits import Limits
from outrider.server.turns import Turns

Result = TypeVar("Result")

_log = logging.getLogger("outrider.server")
_IDLE_SECONDS = 0.5
_FIRST_ESTIMATE, _SHORTEST_RETRY, _LONGEST_RETRY = 5.0, 1, 60
"""Seconds: the estimated run time of a request before one has finished, and the bounds of `retry_after`."""
SHUTTING_DOWN = "the server is shutting down: send the request again later"


@dataclass(eq=False)
class Job:
    """One answer to one prompt, in the queue or in the batch.

    deliver: called by the scheduler's thread with each piece, and with the error that ends the job.
    first: see `Scheduler.submit`.
    """

    prompt: list[int]
    params: SamplingParams
    deliver: Callable[[Piece | OutriderError], None]
    first: bool = True
    arrived: float = field(default_factory=time.perf_counter)
    began: float | None = None
    request: Request | None = None
    output: RequestOutput | None = None
    cancelled: bool = False


class Scheduler:
    """Runs jobs in one batch, first come, first served. Only its own thread uses the engine; jobs join and leave the
    batch between passes.

    Args:
        running: maximum batch size.
        waiting: maximum queue length.
        limits: time limits of a job in the queue and in the batch.
        finished: called by the scheduler's thread with every job that leaves the batch.
        turns: of the passes of all models of the process.
    """

    def __init__(
        self,
        llm: LLM,
        *,
        running: int = 8,
        waiting: int = 64,
        limits: Limits | None = None,
        finished: Callable[[Job], None] = lambda _: None,
        turns: Turns | None = None,
    ) -> None:
        self._engine, self._finished, self._turns = llm.parts.engine, finished, turns or Turns()
        self.most_running, self._most_waiting = running, waiting
        self._limits = limits or Limits()
        self._mean_seconds = _FIRST_ESTIMATE  # moving average of the time in the batch
        self._waiting: deque[Job] = deque()
        self._joining: list[Job] = []  # out of the queue, not in the batch yet
        self._running: list[Job] = []
        self._calls: deque[Callable[[], None]] = deque()
        self._changed = threading.Condition()
        self._stopped = False
        self.draining = False
        self._until = math.inf  # monotonic clock: when the remaining jobs end
        self._thread = threading.Thread(target=self._run, name="outrider-engine", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def drain(self) -> None:
        """Accepts no more requests. After `Limits.stopping` the jobs that are left end with an error.

        Lock-free, since signal handlers call it: the main thread may hold the lock at that moment.
        """
        if not self.draining:
            self._until = time.monotonic() + self._limits.stopping
            self.draining = True

    def stop(self) -> None:
        """As `drain`; returns when all jobs and the thread have ended. Lets go of the engine, as runs that have ended
        still refer to this object."""
        self.drain()
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        self._thread.join()
        del self._engine

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    @property
    def timed_out(self) -> bool:
        """Whether the time for draining is over."""
        return time.monotonic() >= self._until

    @property
    def counts(self) -> tuple[int, int]:
        """Jobs (in the batch, in the queue)."""
        with self._changed:
            return len(self._joining) + len(self._running), len(self._waiting)

    @property
    def retry_after(self) -> int:
        """Seconds until a slot is likely to be free, from the recent run times."""
        expected = self._mean_seconds / self.most_running
        return int(min(max(round(expected), _SHORTEST_RETRY), _LONGEST_RETRY))

    def submit(
        self,
        prompt: list[int],
        params: SamplingParams,
        deliver: Callable[[Piece | OutriderError], None],
        *,
        first: bool = True,
    ) -> Job:
        """Queues a job; see `Job`.

        Args:
            first: False for a request's further jobs, to which the limits of the queue do not apply.

        Raises:
            ApiError: the queue is full, or the server is shutting down.
        """
        job = Job(prompt, params, deliver, first)
        with self._changed:
            if first:
                self._check_room()
            else:
                self._check_open()
            self._waiting.append(job)
            self._changed.notify_all()
        return job

    def check_room(self) -> None:
        """Raises as `submit`."""
        with self._changed:
            self._check_room()

    def check_ready(self) -> None:
        """Raises ApiError if the server is shutting down."""
        if self.draining:
            raise ApiError(503, SHUTTING_DOWN, kind="server_error")

    def _check_open(self) -> None:
        """For what belongs to a request that was accepted: draining lets it finish."""
        if self._stopped or self.timed_out:
            raise ApiError(503, SHUTTING_DOWN, kind="server_error")

    def _check_room(self) -> None:
        self.check_ready()
        free = self.most_running - len(self._joining) - len(self._running)
        if len(self._waiting) >= self._most_waiting + free:
            message = f"the queue is full ({len(self._waiting)} requests): try again in a few seconds"
            raise ApiError(429, message, kind="rate_limit_error", code="rate_limit_exceeded", limit="full")

    def run(self, work: Generator[None, None, Result]) -> Result:
        """What `work` returns, or raises. The scheduler's thread runs it, up to its next `yield` between two passes.

        Raises:
            ApiError: the server is shutting down.
        """
        result: Future[Result] = Future()

        def go_on() -> None:
            try:
                if self.timed_out:
                    work.close()
                    raise ApiError(503, SHUTTING_DOWN, kind="server_error")
                next(work)
            except StopIteration as end:
                result.set_result(end.value)
            except Exception as error:
                result.set_exception(error)
            else:
                self._calls.append(go_on)

        with self._changed:
            self._check_open()
            self._calls.append(go_on)
            self._changed.notify_all()
        return result.result()

    def cancel(self, job: Job) -> None:
        """Ends a job; its slot is free before the next pass."""
        with self._changed:
            job.cancelled = True
            if job in self._waiting:
                self._waiting.remove(job)
            self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._running and not self._waiting and not self._calls and not self._stopped:
                    self._changed.wait(_IDLE_SECONDS)
                if self._stopped and not self._running and not self._waiting and not self._calls:
                    return
                self._expire_waiting()
                self._join()
            for _ in range(len(self._calls)):  # callers that go on at once do not keep the batch waiting
                with self._turns:
                    self._calls.popleft()()
            if self.timed_out:
                self._abandon_all()
            for job in [t for t in self._running if t.cancelled]:
                self._leave(job)
            self._expire_running()
            for job in list(self._joining):
                self._begin(job)
            try:
                with self._turns:
                    self._engine.step()
            except Exception as error:
                # The error cannot be attributed to one request: the whole batch ends, the server goes on.
                _log.exception("a pass failed")
                for job in list(self._running):
                    job.deliver(OutriderError(f"the pass failed: {error}"))
                    self._leave(job)
                continue
            for job in list(self._running):
                self._deliver(job)

    def _expire_waiting(self) -> None:
        limit, now = self._limits.waiting, time.perf_counter()
        for job in [job for job in self._waiting if limit is not None and job.first and now - job.arrived > limit]:
            self._waiting.remove(job)
            message = f"the request waited {limit:g} seconds in the queue: try again later"
            job.deliver(ApiError(503, message, kind="timeout_error", limit="queue"))

    def _expire_running(self) -> None:
        running, waiting, now = self._limits.running, self._limits.waiting, time.perf_counter()
        for job in list(self._running):
            assert job.request is not None
            if job.began is None and job.request.sequence.runs:
                job.began = now
            if running is not None and job.began is not None and now - job.began > running:
                self._leave(job)
                message = f"the request ran for {running:g} seconds: ask for fewer tokens"
                job.deliver(ApiError(504, message, kind="timeout_error", limit="run"))
            elif waiting is not None and job.first and job.request.waits_for_memory and now - job.arrived > waiting:
                self._leave(job)
                message = f"the request waited {waiting:g} seconds for memory that others use: try again later"
                job.deliver(ApiError(503, message, kind="timeout_error", limit="queue"))

    def _join(self) -> None:
        while self._waiting and len(self._running) + len(self._joining) < self.most_running:
            self._joining.append(self._waiting.popleft())

    def _begin(self, job: Job) -> None:
        began = False
        try:
            if not job.cancelled:
                job.request = self._engine.add(list(job.prompt), job.params)
                began = True
        except OutriderError as error:
            job.deliver(error)
        except Exception as error:
            _log.exception("a request could not start")
            job.deliver(OutriderError(f"the request could not start: {error}"))
        with self._changed:  # one step: a job in neither list would leave its slot to another
            self._joining.remove(job)
            self._running += [job] if began else []

    def _deliver(self, job: Job) -> None:
        request = job.request
        assert request is not None
        if request.error is not None:
            self._leave(job)
            job.deliver(OutriderError(f"internal server error: {request.error}"))
            return
        piece = request.take_piece()
        if piece.finish_reason is not None:
            job.output = request.output()
            self._leave(job)
            if job.began is not None:
                self._mean_seconds += 0.2 * (time.perf_counter() - job.began - self._mean_seconds)
        if request.problem is not None:
            job.deliver(UsageError(f"the grammar cannot go on: {request.problem}"))
        elif piece.token_ids or piece.text or piece.finish_reason is not None:
            job.deliver(piece)

    def _leave(self, job: Job) -> None:
        assert job.request is not None
        self._engine.cancel(job.request)
        self._running.remove(job)
        self._finished(job)
        job.request = None  # the job may outlive the model

    def _abandon_all(self) -> None:
        """Ends all jobs: the time for draining is over."""
        running = list(self._running)
        with self._changed:
            left = [*running, *self._joining, *self._waiting]
            self._joining.clear()
            self._waiting.clear()
        for job in running:
            self._leave(job)
        for job in left:
            job.deliver(ApiError(503, SHUTTING_DOWN, kind="server_error"))
