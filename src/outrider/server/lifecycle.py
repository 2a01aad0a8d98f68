"""Runs the server until a signal stops it."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

from outrider.server.limits import Limits
from outrider.server.scheduler import Scheduler
from outrider.server.sockets import BACKLOG

_CLOSING_SECONDS = 5
"""For writing the ends of streams."""


class _DrainingServer(uvicorn.Server):
    """Drains at the first signal, exits at the second.

    uvicorn itself waits for all connections, however long their answers take, before it shuts the application down.
    It also raises the signal again at the end, which makes the exit status nonzero.
    """

    def __init__(self, config: uvicorn.Config, drain: Callable[[], None]) -> None:
        super().__init__(config)
        self._drain = drain

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """Handles a signal."""
        if self.should_exit:
            os._exit(128 + sig)
        self._drain()
        self.should_exit = True


def run_until_stopped(app: ASGIApp, scheduler: Scheduler, limits: Limits, listeners: list[socket.socket]) -> None:
    """Serves at these sockets until SIGINT or SIGTERM; running requests then have `Limits.stopping` seconds."""
    config = uvicorn.Config(
        app,
        log_level=os.environ.get("UVICORN_LOG_LEVEL", "warning"),
        backlog=BACKLOG,
        timeout_graceful_shutdown=round(limits.stopping) + _CLOSING_SECONDS,
    )
    _DrainingServer(config, scheduler.drain).run(sockets=listeners)
