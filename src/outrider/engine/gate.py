"""A reentrant lock that a fork acquires first, so that a child never inherits state in the middle of an update."""

from __future__ import annotations

import _thread
import os
import threading
import time
from itertools import count
from weakref import WeakSet

_POLL_SECONDS = 0.0005


class Gate:
    """Lets one thread in at a time; the same thread may enter again.

    A fork acquires all gates ahead of waiting threads, in the order of their numbers (so two forks cannot deadlock). In
    the child every gate is released.
    """

    def __init__(self) -> None:
        self.number = next(_numbers)
        self.reset()
        _gates.add(self)

    def reset(self) -> None:
        """Releases the gate, which no living thread holds."""
        self._lock, self._owner, self._depth = threading.RLock(), -1, 0
        self._forking: set[int] = set()  # threads that wait to fork

    def __enter__(self) -> None:
        own = threading.get_ident()
        while self._forking and self._owner != own:  # a thread that re-enters in a loop would starve the fork
            time.sleep(_POLL_SECONDS)
        self._lock.acquire()
        self._owner, self._depth = own, self._depth + 1

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        if self._depth == 0:
            self._owner = -1
        self._lock.release()

    def acquire_for_fork(self) -> None:
        """Waits until no other thread is inside."""
        self._forking.add(threading.get_ident())
        self._lock.acquire()

    def release_in_parent(self) -> None:
        """After a fork, in the parent."""
        self._forking.discard(threading.get_ident())
        self._lock.release()


class _Fork(threading.local):
    """Gates that the forking thread has acquired, and whether it was interrupted."""

    def __init__(self) -> None:
        self.acquired: list[Gate] = []
        self.interrupted = False


_numbers = count()
_gates: WeakSet[Gate] = WeakSet()
_fork = _Fork()


def _before_fork() -> None:
    for gate in sorted(_gates, key=lambda gate: gate.number):
        while gate not in _fork.acquired:
            try:
                gate.acquire_for_fork()
                _fork.acquired.append(gate)
            except KeyboardInterrupt:  # does not end the wait: the fork would happen all the same
                _fork.interrupted = True


def _after_fork_in_parent() -> None:
    while _fork.acquired:
        _fork.acquired.pop().release_in_parent()
    if _fork.interrupted:
        _fork.interrupted = False
        _thread.interrupt_main()


def _after_fork_in_child() -> None:
    _fork.acquired.clear()
    for gate in list(_gates):
        gate.reset()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
