"""Runs a server until a signal stops it."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from types import FrameType

import uvicorn

from outrider.server.app import Server
from outrider.server.limits import Limits
from outrider.server.listening import BACKLOG
from outrider.server.scheduler import Scheduler

_CLOSING_SECONDS = 5
"""For what is written to clients after the last request has ended."""


class _DrainingServer(uvicorn.Server):
    """Stops in order at the first signal, at once at the second.

    uvicorn itself waits for all connections before it shuts the application down, however long their answers take. It
    also raises the signal again at the end, so that the exit status is not 0.
    """

    def __init__(self, config: uvicorn.Config, drain: Callable[[], None]) -> None:
        super().__init__(config)
        self._drain = drain

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """A signal to stop."""
        if self.should_exit:
            os._exit(128 + sig)
        self._drain()
        self.should_exit = True


def run_until_stopped(server: Server, scheduler: Scheduler, limits: Limits, listeners: list[socket.socket]) -> None:
    """Serves at these sockets. Returns after SIGINT or SIGTERM: what runs then may end within `Limits.stopping`."""
    config = uvicorn.Config(
        server.app(),
        log_level=os.environ.get("UVICORN_LOG_LEVEL", "warning"),
        backlog=BACKLOG,
        timeout_graceful_shutdown=round(limits.stopping) + _CLOSING_SECONDS,
    )
    _DrainingServer(config, scheduler.drain).run(sockets=listeners)
