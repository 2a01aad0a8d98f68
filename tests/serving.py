"""A server in a thread of its own, for tests and fuzzing."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

import uvicorn

from outrider.server.app import create_app
from outrider.server.keys import ApiKeys
from outrider.server.metrics import Metrics
from outrider.server.scheduler import Scheduler
from outrider.server.service import Service
from outrider.server.sockets import BACKLOG, address, bind


@contextlib.contextmanager
def serving(llm, **options) -> Iterator[tuple[str, Service]]:
    """The base URL of a running server, and its service."""
    keys, limits, store = ApiKeys(options.pop("keys", ())), options.get("limits"), options.pop("store", None)
    ignore_media = options.pop("ignore_media", False)
    metrics = Metrics()
    scheduler = Scheduler(llm, finished=metrics.finished, **options)
    service = Service(llm, scheduler, metrics, name="tiny", keys=keys, limits=limits, ignore_media=ignore_media)
    listeners = bind("127.0.0.1", 0)
    app = create_app(service, loopback="127.0.0.1", store=store)
    running = uvicorn.Server(uvicorn.Config(app, log_level="error", backlog=BACKLOG))
    thread = threading.Thread(target=running.run, args=(listeners,))
    thread.start()
    try:
        while not running.started:
            assert thread.is_alive(), "the server did not start"
            time.sleep(0.01)
        yield f"http://{address(*listeners[0].getsockname()[:2])}", service
    finally:
        running.should_exit = True
        thread.join(60)
