"""A server in a thread of its own, for tests and fuzzing."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

import uvicorn

from outrider.server.app import create_app
from outrider.server.host import Host
from outrider.server.keys import ApiKeys
from outrider.server.limits import Limits
from outrider.server.model_set import ModelSet
from outrider.server.responses.store import ResponseStore
from outrider.server.scheduler import Scheduler
from outrider.server.service import Service
from outrider.server.slot import Slot
from outrider.server.sockets import BACKLOG, address, bind


def one_model(llm, *, keys=(), limits: Limits | None = None, ignore_media: bool = False, **options) -> ModelSet:
    """A set of one loaded model, named "tiny". Options: see `Scheduler`."""
    host = Host(keys=ApiKeys(keys), limits=limits, ignore_media=ignore_media)
    slot = Slot(["tiny"], _never_loaded, adapters=tuple(llm.parts.adapters))
    scheduler = Scheduler(llm, limits=limits, finished=slot.metrics.finished, **options)
    slot.put(Service(llm, scheduler, host, name="tiny"))
    return ModelSet([slot], host)


def _never_loaded(*_: object) -> Service:
    raise AssertionError("it is loaded from the start")


@contextlib.contextmanager
def serving(llm, **options) -> Iterator[tuple[str, Service]]:
    """The base URL of a running server, and its service."""
    store = options.pop("store", None)
    models = one_model(llm, **options)
    service = models.slots[0].service
    assert service is not None
    with running(models, store=store) as url:
        yield url, service


@contextlib.contextmanager
def running(models: ModelSet, *, store: ResponseStore | None = None) -> Iterator[str]:
    """The base URL of a running server."""
    listeners = bind("127.0.0.1", 0)
    app = create_app(models, loopback="127.0.0.1", store=store)
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", backlog=BACKLOG))
    thread = threading.Thread(target=server.run, args=(listeners,))
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive(), "the server did not start"
            time.sleep(0.01)
        yield f"http://{address(*listeners[0].getsockname()[:2])}"
    finally:
        server.should_exit = True
        thread.join(60)
