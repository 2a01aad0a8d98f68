"""Time limits."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Seconds; None is unlimited.

    Args:
        waiting: a request in the queue.
        running: a request from its first pass to its end.
        reading: one event of a stream that the client does not read.
        body: receiving a request's body.
        stopping: accepted requests after the signal to stop.
        idle: a connection between two requests; longer than the connection pools of common clients wait.
    """

    waiting: float | None = 60.0
    running: float | None = None
    reading: float | None = 60.0
    body: float | None = 30.0
    stopping: float = 30.0
    idle: float = 75.0
