"""Turns of threads at one engine: its state has one thread inside at a time, and a pass serves the requests of all."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from weakref import WeakSet


class Turns:
    """Who may be inside. There are two kinds of turn:

    - A *change* adds requests. It waits for the running pass to end and goes before the next one.
    - A *pass* computes for every request, so a thread that finds one running waits for its end and runs none itself.

    A fork waits for the turn to end, so that the child never inherits half a pass.
    """

    def __init__(self) -> None:
        # Reentrant: while a thread holds it, a garbage collection may end a stream, and with it a request.
        self._free = threading.Condition()
        self._inside: int | None = None  # the thread whose turn it is
        self._changes = 0  # that wait
        self._passes = 0  # that have ended
        self.in_new_child = False
        """Whether the process was forked since this was last set to False."""
        _all.add(self)

    @contextmanager
    def change(self, end: Callable[[], None]) -> Iterator[None]:
        """A change; within one of the same thread, a part of it. `end` is called last, before anyone else's turn."""
        own = threading.get_ident()
        if self._inside == own:
            yield
            return
        try:
            with self._free:
                self._changes += 1
                try:
                    self._free.wait_for(lambda: self._inside is None)
                finally:
                    self._changes -= 1
                self._inside = own
            yield
        finally:
            if self._inside == own:
                self._leave(end, passes=0)

    def run_pass(self, work: Callable[[], None], end: Callable[[], None]) -> None:
        """Runs `work`, or waits until another thread's pass has ended. `end` as in `change`.

        Raises:
            RuntimeError: this thread is inside already.
        """
        own = threading.get_ident()
        if self._inside == own:
            raise RuntimeError("a pass cannot be run from within another one")
        try:
            with self._free:
                before = self._passes
                self._free.wait_for(lambda: self._passes != before or (self._inside is None and not self._changes))
                if self._passes != before:
                    return
                self._inside = own
            work()
        finally:  # an interrupt may come at any line
            if self._inside == own:
                self._leave(end, passes=1)

    def at_once(self, work: Callable[[], None]) -> None:
        """Runs `work`, which must be short, if nobody is inside; else it is left to the `end` of the running turn."""
        with self._free:
            if self._inside is None:
                work()

    def _leave(self, end: Callable[[], None], passes: int) -> None:
        with self._free:
            try:
                end()
            finally:
                self._inside = None
                self._passes += passes
                self._free.notify_all()

    def before_fork(self) -> None:
        """Waits until nobody else is inside, and lets nobody in."""
        self._free.acquire()
        self._free.wait_for(lambda: self._inside in (None, threading.get_ident()))

    def after_fork_in_parent(self) -> None:
        """Goes on."""
        self._free.release()

    def after_fork_in_child(self) -> None:
        """Begins anew: the threads that wait exist in the parent alone."""
        self._free = threading.Condition()
        self._changes = 0
        self.in_new_child = True


_all: WeakSet[Turns] = WeakSet()
_forking: list[Turns] = []


def _before_fork() -> None:
    _forking.extend(_all)
    for turns in _forking:
        turns.before_fork()


def _after_fork(go_on: Callable[[Turns], None]) -> None:
    while _forking:
        go_on(_forking.pop())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=lambda: _after_fork(Turns.after_fork_in_parent),
        after_in_child=lambda: _after_fork(Turns.after_fork_in_child),
    )
