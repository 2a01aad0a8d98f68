"""Replicas of one model behind a router from PyPI, each in a process of its own."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import routers
from server.server_process import ServerProcess

PAUSE = 0.03
"""Seconds before each pass: an answer of 300 tokens takes nine seconds, long enough for a fault in its midst."""
DRAIN_SECONDS = 600.0


class Routed:
    """A router and its replicas.

    Attributes:
        url: of the router.
        replicas: in the order of their start.
    """

    def __init__(self, url: str, replicas: list[ServerProcess], start: Callable[[int], ServerProcess]) -> None:
        self.url, self.replicas, self._start = url, replicas, start

    def restore(self) -> None:
        """Starts replicas that have ended again, at their ports, and waits until the router takes them back."""
        for number, replica in enumerate(self.replicas):
            if not replica.running:
                self.replicas[number] = self._start(httpx.URL(replica.url).port or 0)
        routers.wait_until_ready(self.url, len(self.replicas))


@contextlib.contextmanager
def routed(router: str, model: Path, drafter: Path, count: int, policy: str) -> Iterator[Routed]:
    """So many replicas of a model behind a router with the options of docs/replicas.md."""
    with contextlib.ExitStack() as stack:

        def start(port: int) -> ServerProcess:
            pauses = ("--pause", str(PAUSE), "--stopping", str(DRAIN_SECONDS), "--port", str(port))
            replica = ServerProcess(model, drafter, 2048, *pauses)
            stack.callback(_stop, replica)
            return replica

        with ThreadPoolExecutor(count) as pool:
            replicas = list(pool.map(start, [0] * count))
        urls = [replica.url for replica in replicas]
        yield Routed(stack.enter_context(routers.running(router, urls, "--policy", policy)), replicas, start)


def _stop(replica: ServerProcess) -> None:
    if replica.running:
        replica.signal(signal.SIGKILL)
    replica.close()
