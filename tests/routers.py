"""The routers of PyPI as processes, in front of replicas: their programs, options and readiness."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx

COMMANDS = {"vllm-router": ["vllm-router"], "smg": ["smg", "launch"]}
"""Router -> its command, as the package of the same name installs it."""
OPTIONS = [
    *("--health-check-endpoint", "/ready"),
    *("--health-check-interval-secs", "1"),
    *("--cb-timeout-duration-secs", "2"),
    *("--balance-abs-threshold", "8"),
]
"""Those of docs/replicas.md."""
_START_SECONDS = 300.0


def program(router: str) -> str | None:
    """The router's program beside this Python or on the PATH; None where it is not installed."""
    name = COMMANDS[router][0]
    return shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)


@contextlib.contextmanager
def running(router: str, urls: Sequence[str], *options: str) -> Iterator[str]:
    """The URL of a router that reaches all of these replicas.

    Args:
        options: of the router, after OPTIONS.

    Raises:
        RuntimeError: the router is not installed, or did not reach its replicas. With its log.
    """
    found = program(router)
    if found is None:
        raise RuntimeError(f"{router} is not installed: pip install {router}")
    port, metrics = _free_ports(2)
    command = [found, *COMMANDS[router][1:], "--host", "127.0.0.1", "--port", str(port)]
    command += ["--prometheus-port", str(metrics), "--worker-urls", *urls, *OPTIONS, *options]
    with tempfile.TemporaryFile(mode="w+") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        url = f"http://127.0.0.1:{port}"
        try:
            wait_until_ready(url, len(urls))
            yield url
        except NotReadyError as error:
            log.seek(0)
            raise RuntimeError(f"{router}: {error}\n{log.read()}") from error
        finally:
            process.kill()
            process.wait()


class NotReadyError(Exception):
    """A router does not reach its replicas in time."""


def wait_until_ready(url: str, replicas: int) -> None:
    """Until the router reports so many as healthy.

    Raises:
        NotReadyError: it does not.
    """
    until = time.monotonic() + _START_SECONDS
    while time.monotonic() < until:
        with contextlib.suppress(httpx.TransportError, ValueError):
            if httpx.get(f"{url}/readiness").json().get("healthy_workers") == replicas:
                return
        time.sleep(0.05)
    raise NotReadyError(f"the router does not reach {replicas} replicas")


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        bound = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in bound:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in bound]
