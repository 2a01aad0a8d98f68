"""Bounds the log when the process has no file handles left for new connections."""

from __future__ import annotations

import asyncio
import logging
import math
from typing import Any

_log = logging.getLogger("outrider.server")
_INTERVAL_SECONDS = 10.0
_MESSAGE = "socket.accept() out of system resource"
"""asyncio reports every attempt to accept a connection, some thousand a second."""


def limit_accept_errors(loop: asyncio.AbstractEventLoop) -> None:
    """Makes a loop report it once in 10 seconds. All other errors are handled as before."""
    before, last = loop.get_exception_handler(), -math.inf

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        nonlocal last
        if context.get("message") == _MESSAGE:
            if loop.time() - last >= _INTERVAL_SECONDS:
                last = loop.time()
                problem = context.get("exception")
                _log.error("no more connections can be accepted (%s): raise the limit (ulimit -n)", problem)
        elif before is not None:
            before(loop, context)
        else:
            loop.default_exception_handler(context)

    loop.set_exception_handler(handle)
