"""Runs the server until a signal stops it."""

from __future__ import annotations

import os
import socket
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

from outrider.server.limits import Limits
from outrider.server.model_set import ModelSet
from outrider.server.sockets import BACKLOG

CLOSING_SECONDS = 5
"""For writing the ends of streams."""


class _DrainingServer(uvicorn.Server):
    """Drains at the first signal, exits at the second.

    While it drains it listens on: load balancers see at /ready that it leaves, and requests that still come get a 503,
    which a router sends to another replica. It exits when the last answer is written, or when the time is over. uvicorn
    itself closes its sockets at the first signal, and raises the signal again at the end, which makes the exit status
    nonzero.
    """

    def __init__(self, config: uvicorn.Config, models: ModelSet) -> None:
        super().__init__(config)
        self._models = models

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """Handles a signal."""
        if self._models.draining:
            os._exit(128 + sig)
        self._models.drain()

    async def on_tick(self, counter: int) -> bool:
        """Whether it is time to exit; uvicorn asks ten times a second."""
        models = self._models
        if models.draining:
            answering = self.server_state.tasks or any(models.counts)  # a response in the background has no task
            self.should_exit = models.timed_out or not answering
        return await super().on_tick(counter)


def configured(app: ASGIApp, limits: Limits) -> uvicorn.Config:
    """uvicorn's configuration."""
    return uvicorn.Config(
        app,
        log_level=os.environ.get("UVICORN_LOG_LEVEL", "warning"),
        backlog=BACKLOG,
        timeout_keep_alive=round(limits.idle),
        timeout_graceful_shutdown=CLOSING_SECONDS,
    )


def run_until_stopped(app: ASGIApp, models: ModelSet, limits: Limits, listeners: list[socket.socket]) -> None:
    """Serves at these sockets until SIGINT or SIGTERM; running requests then have `Limits.stopping` seconds."""
    _DrainingServer(configured(app, limits), models).run(sockets=listeners)
