"""How long things may take."""

from __future__ import annotations

from dataclasses import dataclass

from outrider.errors import OutriderError


@dataclass(frozen=True)
class Limits:
    """Seconds; None is for ever.

    Args:
        waiting: in the queue.
        running: from the first pass of a request to its end.
        reading: that a client may take nothing of what is there for it.
        body: until a request's body is there.
        stopping: from the signal to stop until what still runs is ended.
    """

    waiting: float | None = 60.0
    running: float | None = None
    reading: float | None = 60.0
    body: float | None = 30.0
    stopping: float = 30.0


class TimedOutError(OutriderError):
    """A request took longer than it may.

    Args:
        status: the HTTP status that tells a client so.
        where: "queue" or "run", as the metrics count it.
    """

    def __init__(self, message: str, *, status: int, where: str) -> None:
        super().__init__(message)
        self.status, self.where = status, where
