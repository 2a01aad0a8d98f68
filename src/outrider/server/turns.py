"""Whose pass is next, where several models are at work."""

from __future__ import annotations

import threading
from types import TracebackType


class Turns:
    """A lock that threads get in the order in which they asked.

    Each pass uses all cores, and its threads meet after every call. Two passes at once would wait for each other's
    threads; one after the other, both models have the whole machine half of the time. A plain lock does not do: who
    releases it and asks again at once usually gets it again.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._asked = self._done = 0

    def __enter__(self) -> None:
        with self._changed:
            mine, self._asked = self._asked, self._asked + 1
            self._changed.wait_for(lambda: self._done == mine)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._done += 1
            self._changed.notify_all()
