"""The thread that runs an engine for the callers of an `LLM`.

Callers of any thread put requests into one queue, which the driver empties between passes. So all requests share
passes, and a caller's interrupt, recursion limit or garbage collection cannot break one: callers touch only a queue.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, TypeVar
from weakref import WeakSet

from outrider.engine.engine import Engine
from outrider.engine.outputs import Piece, RequestOutput
from outrider.engine.request import Request
from outrider.errors import OutriderError, UsageError
from outrider.sampling.params import SamplingParams

Event = Piece | RequestOutput | Exception
Result = TypeVar("Result")

_CHECK_SECONDS = 1.0
"""How often a waiting caller checks that the thread is alive."""


class Answer:
    """The caller's side of a request. `events` are its pieces, if it streams, then its output or the error."""

    def __init__(self, thread: threading.Thread, *, streams: bool) -> None:
        self.thread, self.streams = thread, streams
        self.process = os.getpid()
        self.events: SimpleQueue[Event] = SimpleQueue()
        self.request: Request | None = None  # once it has begun; the driver's own

    def next(self) -> Piece | RequestOutput:
        """The next event.

        Raises:
            OutriderError: the process was forked or the model closed meanwhile.
            Exception: the error that ended the request, such as a failed pass.
        """
        if self.process != os.getpid():
            raise OutriderError("the process was forked while the request ran: send it again in the child")
        event: Piece | RequestOutput = _awaited(self.events, self.thread)
        return event

    def pieces(self) -> Iterator[Piece]:
        """The pieces up to the last one. Raises as `next`, and UsageError if the grammar cannot continue."""
        while True:
            piece = self.next()
            assert isinstance(piece, Piece)
            yield piece
            if piece.finish_reason is not None:
                self._check_whole()
                return

    def output(self) -> RequestOutput:
        """The whole answer. Raises as `pieces`."""
        output = self.next()
        assert isinstance(output, RequestOutput)
        self._check_whole()
        return output

    def _check_whole(self) -> None:
        assert self.request is not None
        if (problem := self.request.problem) is not None:
            raise UsageError(f"the grammar cannot go on after {len(self.request.answer)} tokens: {problem}")


class Driver:
    """Runs an engine in a thread of its own, until `stop`.

    Args:
        load_seconds: for the statistics of every request.
        at_end: called once it has stopped.
    """

    def __init__(self, engine: Engine, load_seconds: float, at_end: Callable[[], None] = lambda: None) -> None:
        self._engine, self._load_seconds, self._at_end = engine, load_seconds, at_end
        self._begin_here()
        _all.add(self)

    def submit(self, requests: Sequence[tuple[list[int], SamplingParams]], *, streams: bool = False) -> list[Answer]:
        """Queues requests, each a prompt and its parameters; they begin in the same pass."""
        self._begin_in_child()
        answers = [Answer(self._thread, streams=streams) for _ in requests]
        self._calls.put(partial(self._begin, list(zip(answers, requests, strict=True))))
        return answers

    def run(self, work: Generator[None, None, Result]) -> Result:
        """What `work` returns, or raises. The thread runs it, up to its next `yield` between two passes, and to its end
        even if the caller is interrupted."""
        self._begin_in_child()
        result: SimpleQueue[Result | Exception] = SimpleQueue()

        def go_on() -> None:
            try:
                next(work)
            except StopIteration as end:
                result.put(end.value)
            except Exception as error:
                result.put(error)
            else:
                self._calls.put(go_on)

        self._calls.put(go_on)
        found: Result = _awaited(result, self._thread)
        return found

    def cancel(self, answers: Sequence[Answer]) -> None:
        """Ends requests before the next pass. Acquires no lock, so a garbage collection may call it anywhere."""
        if self._process == os.getpid():
            self._calls.put(partial(self._drop, answers))

    def stop(self, why: str = "the model was closed while the request ran") -> None:
        """Ends the thread before its next pass, and its requests with the error `why`; waits for that.

        Drops the engine: a stream that its caller has suspended must not hold a closed model's memory.
        """
        if self._thread is threading.current_thread():
            return
        if self._process == os.getpid() and self._thread.is_alive():
            self._calls.put(partial(self._end_all, OutriderError(why)))
            self._calls.put(None)
            self._thread.join()
        if (engine := self.__dict__.pop("_engine", None)) is not None:
            at_end, self._at_end = self._at_end, lambda: None  # it may hold the model's memory too
            with engine.target.gate:  # which another thread may step
                at_end()

    def _begin_in_child(self) -> None:
        """Starts a thread in a forked child: the parent's, and its requests, do not exist there."""
        if self._process != os.getpid():
            self._engine.cancel_all()
            self._begin_here()

    def _begin_here(self) -> None:
        self._process = os.getpid()
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._running: list[Answer] = []  # the thread's own
        self._thread = threading.Thread(target=self._run, name="outrider-driver", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while True:
            for call in self._waiting_calls():
                if call is None:
                    return
                call()
            if self._running:
                self._pass()

    def _waiting_calls(self) -> Iterator[Callable[[], None] | None]:
        """Those in the queue; waits for one if no request runs."""
        if not self._running:
            yield self._calls.get()
        for _ in range(self._calls.qsize()):  # callers that go on at once do not keep the requests waiting
            try:
                yield self._calls.get_nowait()
            except Empty:
                return

    def _begin(self, requests: list[tuple[Answer, tuple[list[int], SamplingParams]]]) -> None:
        for answer, (prompt, params) in requests:
            try:
                answer.request = self._engine.add(prompt, params)
            except Exception as error:
                answer.events.put(error)
                continue
            answer.request.stats.load_seconds = self._load_seconds
            self._running.append(answer)

    def _drop(self, answers: Sequence[Answer]) -> None:
        for answer in answers:
            if answer in self._running:
                self._running.remove(answer)
                assert answer.request is not None
                self._engine.cancel(answer.request)

    def _pass(self) -> None:
        try:
            self._engine.step()
        except Exception as error:  # which request caused it is unknown
            self._end_all(OutriderError(f"the pass failed: {error!r}"))
            return
        for answer in list(self._running):
            assert answer.request is not None
            if answer.streams or answer.request.ended:
                answer.events.put(_event(answer, answer.request))
            if answer.request.ended:
                self._running.remove(answer)

    def _end_all(self, why: OutriderError) -> None:
        for answer in list(self._running):
            self._drop([answer])
            answer.events.put(why)


def _event(answer: Answer, request: Request) -> Event:
    if request.error is not None:
        return request.error
    return request.take_piece() if answer.streams else request.output()


def _awaited(events: SimpleQueue[Any], thread: threading.Thread) -> Any:
    """The next event. Raises it if it is an error, and OutriderError if the thread ended without one."""
    while True:
        try:
            event = events.get(timeout=_CHECK_SECONDS)
        except Empty:
            if not thread.is_alive() and events.empty():
                raise OutriderError("the model was closed while the request ran") from None
            continue
        if isinstance(event, Exception):
            raise event
        return event


_all: WeakSet[Driver] = WeakSet()


@atexit.register
def _stop_all() -> None:
    """A thread inside the core when the interpreter ends would abort the process."""
    for driver in list(_all):
        driver.stop()
