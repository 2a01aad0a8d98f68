"""A reentrant lock that a fork acquires first, so that a child never inherits state in the middle of an update."""

from __future__ import annotations

import _thread
import os
import threading
import time
from itertools import count
from types import TracebackType
from weakref import WeakSet

_POLL_SECONDS = 0.0005


class Gate:
    """Lets one thread in at a time; the same thread may enter again.

    A fork acquires all gates in the order of their numbers (so two forks cannot deadlock), ahead of waiting threads. So
    it happens while no other thread holds one, and in the child every gate is released.
    """

    def __init__(self) -> None:
        self.number = next(_numbers)
        self._lock = threading.RLock()
        self._owner: int | None = None
        self._depth = 0
        self._forking: set[int] = set()  # threads that wait to fork
        _gates.add(self)

    def __enter__(self) -> None:
        own = threading.get_ident()
        while self._forking and self._owner != own:  # who leaves and enters in a loop would never let a fork in
            time.sleep(_POLL_SECONDS)
        self._lock.acquire()
        self._owner, self._depth = own, self._depth + 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._depth -= 1
        if self._depth == 0:
            self._owner = None
        self._lock.release()

    def take_for_fork(self) -> bool:
        """Waits until nobody is inside.

        Returns whether an interrupt came. It does not end the wait, since the fork would happen all the same.
        """
        self._forking.add(threading.get_ident())
        interrupted = False
        while True:
            try:
                if self._lock.acquire(timeout=1.0):
                    return interrupted
            except KeyboardInterrupt:
                interrupted = True

    def go_on_in_parent(self) -> None:
        """After a fork, in the parent."""
        self._forking.discard(threading.get_ident())
        self._lock.release()

    def open_in_child(self) -> None:
        """After a fork, in the child: no other thread exists."""
        self._lock, self._owner, self._depth = threading.RLock(), None, 0
        self._forking.clear()


class _Fork(threading.local):
    """What the thread that forks has taken, and whether it was interrupted."""

    def __init__(self) -> None:
        self.taken: list[Gate] = []
        self.interrupted = False


_numbers = count()
_gates: WeakSet[Gate] = WeakSet()
_fork = _Fork()


def _before_fork() -> None:
    for gate in sorted(_gates, key=lambda gate: gate.number):
        _fork.interrupted |= gate.take_for_fork()
        _fork.taken.append(gate)


def _after_fork_in_parent() -> None:
    while _fork.taken:
        _fork.taken.pop().go_on_in_parent()
    if _fork.interrupted:
        _fork.interrupted = False
        _thread.interrupt_main()


def _after_fork_in_child() -> None:
    _fork.taken.clear()
    for gate in list(_gates):
        gate.open_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
