"""A server in a process of its own, and what can be seen of it from outside.

As a program it serves a model until its standard input ends, so that it does not outlive who started it, and gives
free memory back at each line of it; or, with --stopping, until a signal comes, as `outrider serve` does.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import os
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

HISTORY = 4096
"""Tokens of earlier requests that lookup may draft from. `outrider serve` keeps 65536, and its memory goes up and down
by some 20 MB with it; less is sooner at its bound, and hides less."""
PREFIX_CACHE_BYTES = 8 << 20
RUNNING, WAITING = 8, 24
STORED = 50
"""Responses: soon there are so many, and memory is steady."""


@dataclass(frozen=True)
class Seen:
    """The process at one moment: resident bytes, open files (sockets too), threads.

    Bytes are counted once the allocator has given back what is free: how much it keeps goes up and down by megabytes,
    between which no leak would be seen.
    """

    resident: int
    files: int
    threads: int


class ServerProcess:
    """Starts a server and waits until it answers. To be closed, or used in a `with`.

    Args:
        model: "demo", or a path.
        drafter: the MTP drafter's path.
        options: more arguments of the program.
    """

    def __init__(self, model: str | Path, drafter: Path | None, context: int, *options: str) -> None:
        arguments = [str(model), "--context", str(context), *(["--drafter", str(drafter)] if drafter else []), *options]
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
        self._log = tempfile.TemporaryFile(mode="w+")  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, __file__, *arguments],
            stdin=subprocess.PIPE,
            bufsize=1,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=environment,
        )
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().strip()
        if not self.url:
            raise RuntimeError(f"the server did not start: it ended with status {self._process.wait()}\n{self.log()}")
        self._seen = psutil.Process(self._process.pid)

    def __enter__(self) -> ServerProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> int:
        """Stops it; its exit status."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            return self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        return self._process.poll() is None

    def signal(self, number: int) -> None:
        """Sends it a signal."""
        self._process.send_signal(number)

    def wait(self, seconds: float) -> int:
        """Its exit status, once it has ended by itself."""
        return self._process.wait(seconds)

    def log(self) -> str:
        """What it wrote to standard error."""
        self._log.seek(0)
        return self._log.read()

    def seen(self) -> Seen:
        """How it stands. Not with --stopping."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdout.readline()
        with self._seen.oneshot():
            return Seen(self._seen.memory_info().rss, self._seen.num_fds(), self._seen.num_threads())

    def about(self) -> dict[str, Any]:
        """The model, as `GET /v1/models` has it."""
        model: dict[str, Any] = httpx.get(f"{self.url}/v1/models").json()["data"][0]
        return model

    def metrics(self) -> dict[str, float]:
        """Of `GET /metrics`, without the prefix of the names."""
        lines = httpx.get(f"{self.url}/metrics").text.splitlines()
        values = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        return {name.removeprefix("outrider_"): float(value) for name, value in values.items()}


def _serve(arguments: argparse.Namespace) -> None:
    from outrider import LLM
    from outrider.server.allocator import return_large_blocks

    return_large_blocks()  # as the command does
    llm = LLM(
        arguments.model,
        drafter=arguments.drafter,
        lookup_history=HISTORY,
        prefix_cache_bytes=PREFIX_CACHE_BYTES,
        context=arguments.context,
        threads=1,
    )
    step = llm.parts.engine.step

    def slowly() -> None:
        time.sleep(arguments.pause)
        step()

    if arguments.pause:
        llm.parts.engine.step = slowly  # type: ignore[method-assign]
    if arguments.stopping is None:
        _until_the_input_ends(llm)
    else:
        _until_a_signal_comes(llm, arguments.stopping, arguments.port)


def _until_the_input_ends(llm: Any) -> None:
    from serving import serving

    from outrider.server.limits import Limits
    from outrider.server.responses.store import ResponseStore

    store, limits = ResponseStore(most=STORED), Limits(waiting=None)  # on a busy machine it takes more than a minute
    with serving(llm, running=RUNNING, waiting=WAITING, store=store, limits=limits) as (url, _):
        print(url, flush=True)
        for _ in sys.stdin:
            gc.collect()
            if platform.libc_ver()[0] == "glibc":
                ctypes.CDLL(None).malloc_trim(0)
            print("memory given back", flush=True)


def _until_a_signal_comes(llm: Any, stopping: float, port: int) -> None:
    from serving import one_model

    from outrider.server.app import create_app
    from outrider.server.lifecycle import run_until_stopped
    from outrider.server.limits import Limits
    from outrider.server.sockets import address, bind

    limits = Limits(stopping=stopping)
    models = one_model(llm, limits=limits)
    listeners = bind("127.0.0.1", port)
    print(f"http://{address(*listeners[0].getsockname()[:2])}", flush=True)
    run_until_stopped(create_app(models, loopback="127.0.0.1"), models, limits, listeners)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--drafter")
    parser.add_argument("--context", type=int, required=True)
    parser.add_argument("--pause", type=float, default=0.0, help="seconds before each pass")
    parser.add_argument("--stopping", type=float, help="seconds that requests may take after a signal")
    parser.add_argument("--port", type=int, default=0, help="with --stopping")
    _serve(parser.parse_args())
