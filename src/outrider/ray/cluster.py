"""Runs the application until a signal comes: on this machine, or on the cluster that RAY_ADDRESS names."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType

import ray
from ray import serve
from ray.exceptions import RayError

from outrider.errors import OutriderError
from outrider.ray.deployment import Replicas, application
from outrider.server.setup import Setup

_NAME = "outrider"
_HERE = {"address": "local", "include_dashboard": False, "object_store_memory": 100 << 20}
"""How Ray starts here. Its object store holds only requests and answers that are under way; by default it may
take 30 % of the memory."""
_PROXY_START = ("RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S", "60")
"""Ray gives a proxy 5 s to start, three times, and then ends all: a busy machine takes longer to import it."""


def run_replicas(setup: Setup, replicas: Replicas, host: str, port: int, announce: Callable[[], None]) -> None:
    """Serves until SIGINT or SIGTERM; requests then have `Limits.stopping` seconds.

    Args:
        host, port: where the proxy of each node listens; where Ray Serve already runs, its own stay.
        announce: called when all replicas are ready.

    Raises:
        OutriderError: the replicas cannot be started; on this machine, before anything is.
    """
    local = not os.environ.get("RAY_ADDRESS")
    if local:
        os.environ.setdefault(*_PROXY_START)
        setup.check()  # Ray would try three times, and then tell nobody why
    stopped = threading.Event()
    try:
        ray.init(**(_HERE if local else {}))
    except Exception as error:  # Ray raises it itself, where a busy machine does not start it within 30 s
        raise OutriderError(f"Ray cannot be started, or reached ({error}): try again, or see the log above") from error
    try:
        serve.start(http_options={"host": host, "port": port, "keep_alive_timeout_s": round(setup.limits.idle)})
        serve.run(application(setup, replicas), name=_NAME)
        _on_signals(lambda *_: stopped.set())
        announce()
        stopped.wait()
        _on_signals(lambda *_: sys.exit(1))  # a second one: Ray ends its processes as this one exits
    except (RayError, RuntimeError, TimeoutError) as error:
        raise OutriderError(f"the replicas cannot be started ({error}): the log above has the reason") from error
    finally:
        _delete()
        if local:
            serve.shutdown()
        ray.shutdown()


def _on_signals(action: Callable[[int, FrameType | None], None]) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, action)


def _delete() -> None:
    """Ends the application once its requests have ended, for which Ray's own call waits a minute at most."""
    while True:
        try:
            serve.delete(_NAME)
            return
        except TimeoutError:
            continue
