"""A server in a thread of its own, for tests and fuzzing."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import uvicorn

from outrider.server.app import Server
from outrider.server.keys import ApiKeys
from outrider.server.metrics import Metrics
from outrider.server.scheduler import Scheduler


@contextlib.contextmanager
def serving(llm, **options) -> Iterator[tuple[str, Server]]:
    """The base URL of a running server."""
    keys, limits = ApiKeys(options.pop("keys", ())), options.get("limits")
    ignore_media = options.pop("ignore_media", False)
    metrics = Metrics()
    scheduler = Scheduler(llm, finished=metrics.finished, **options)
    server = Server(
        *(llm, scheduler, metrics),
        name="tiny",
        keys=keys,
        limits=limits,
        loopback="127.0.0.1",
        ignore_media=ignore_media,
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    running = uvicorn.Server(uvicorn.Config(server.app(), port=port, log_level="error"))
    thread = threading.Thread(target=running.run)
    thread.start()
    try:
        while not running.started:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{port}", server
    finally:
        running.should_exit = True
        thread.join(60)
