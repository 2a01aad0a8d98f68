"""Serves a model in a container with little memory, and sends it long prompts that have nothing in common, all at once.

usage: make contained, or PYTHONPATH=tests python tests/server/contained.py [MODEL] [--mebibytes 4096] [--requests 8]
           [--tokens 60000] [--serve "OPTIONS of outrider serve"]

The container is a Linux control group for memory, of version 1 or 2, which only root can make. Each request has to be
answered, or refused with a reason, and the server has to live.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random

import httpx

_GROUPS = Path("/sys/fs/cgroup")
_LIMITS = {"memory.max": "memory.swap.max", "memory.limit_in_bytes": "memory.memsw.limit_in_bytes"}
"""Of versions 2 and 1: the limit of memory, and that of swap (alone, and together with memory)."""
_PEAKS = ("memory.peak", "memory.max_usage_in_bytes")
_COMMAND = "from outrider.cli import main; main()"
_START_SECONDS, _ANSWER_SECONDS = 120.0, 3600.0
_JOIN = 'echo $$ > "$0" && exec "$@"'
"""For a shell: joins the group whose cgroup.procs is $0, and becomes the command."""


class NoGroupError(Exception):
    """Why no control group with a limit can be made here."""


@dataclass(frozen=True)
class Outcome:
    """What became of one request: the status, and for a refusal its message, else the number of prompt tokens."""

    status: int
    said: str


@dataclass(frozen=True)
class Seen:
    """The outcomes, whether the server lived to the end, and the most memory that the group held, in bytes."""

    outcomes: list[Outcome]
    lived: bool
    peak: int


@contextmanager
def memory_group(limit: int) -> Iterator[Path]:
    """A control group of processes that may use `limit` bytes of memory, and no swap. Its processes must have ended
    when it closes.

    Raises:
        NoGroupError: the system permits none.
    """
    root = _GROUPS / "memory" if (_GROUPS / "memory").is_dir() else _GROUPS
    group = root / f"outrider-contained-{os.getpid()}"
    try:
        group.mkdir()
    except OSError as error:
        raise NoGroupError(f"no control group can be made in {root} ({error.strerror})") from error
    try:
        memory = next((name for name in _LIMITS if (group / name).exists()), None)
        if memory is None:
            raise NoGroupError(f"control groups in {root} have no limit for memory")
        (group / memory).write_text(str(limit))
        if (swap := group / _LIMITS[memory]).exists():
            swap.write_text("0" if memory == "memory.max" else str(limit))
        yield group
    finally:
        group.rmdir()


def serve_contained(model: str, limit: int, prompts: Sequence[list[int]], options: Sequence[str] = ()) -> Seen:
    """Sends all prompts at once to a server that may use `limit` bytes.

    Args:
        options: of `outrider serve`.

    Raises:
        NoGroupError: see `memory_group`.
    """
    with memory_group(limit) as group, tempfile.NamedTemporaryFile() as log:
        command = [sys.executable, "-c", _COMMAND, "serve", model, "--port", "0", *options]
        join = ["sh", "-c", _JOIN, str(group / "cgroup.procs")]
        server = subprocess.Popen([*join, *command], stderr=log, stdout=log)
        try:
            url = _url(server, Path(log.name))
            with ThreadPoolExecutor(len(prompts)) as threads:
                outcomes = list(threads.map(lambda prompt: _outcome(url, prompt), prompts))
            lived = server.poll() is None
            peak = next((int((group / name).read_text()) for name in _PEAKS if (group / name).exists()), 0)
            return Seen(outcomes, lived, peak)
        finally:
            server.terminate()
            try:
                server.wait(60)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def random_prompts(count: int, tokens: int, vocabulary: int) -> list[list[int]]:
    """Prompts of so many token ids below `vocabulary`, each with others."""
    return [[random.randrange(3, vocabulary) for _ in range(tokens)] for random in map(Random, range(count))]


def _url(server: subprocess.Popen[bytes], log: Path) -> str:
    """Where the server listens, once it has loaded."""
    until = time.monotonic() + _START_SECONDS
    while time.monotonic() < until and server.poll() is None:
        if found := re.search(r" at (http://\S+)/v1", log.read_text()):
            return found[1]
        time.sleep(0.1)
    raise RuntimeError(f"the server did not start:\n{log.read_text()}")


def _outcome(url: str, prompt: list[int]) -> Outcome:
    body = {"prompt": prompt, "max_tokens": 2, "ignore_eos": True}
    try:
        found = httpx.post(f"{url}/v1/completions", json=body, timeout=_ANSWER_SECONDS)
    except httpx.HTTPError as error:
        return Outcome(0, f"no answer: {error!r}")
    if found.status_code == 200:
        return Outcome(200, f"{found.json()['usage']['prompt_tokens']:,} tokens in the prompt")
    return Outcome(found.status_code, found.json()["error"]["message"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="demo")
    parser.add_argument("--mebibytes", type=int, default=4096)
    parser.add_argument("--requests", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=60_000)
    parser.add_argument("--vocabulary", type=int, default=200_000, help="token ids of the prompts are below it")
    parser.add_argument("--serve", default="", help="more options of outrider serve")
    given = parser.parse_args()
    prompts = random_prompts(given.requests, given.tokens, given.vocabulary)
    started = time.monotonic()
    try:
        seen = serve_contained(given.model, given.mebibytes << 20, prompts, shlex.split(given.serve))
    except NoGroupError as error:
        raise SystemExit(f"{error}: run it as root on Linux, outside a container") from error
    for outcome in seen.outcomes:
        print(outcome.status, outcome.said)
    print(f"{time.monotonic() - started:.0f} s, at most {seen.peak / (1 << 20):,.0f} MiB of {given.mebibytes:,}")
    if not seen.lived or not all(outcome.status in (200, 400, 503) and outcome.said for outcome in seen.outcomes):
        raise SystemExit("the server ended" if not seen.lived else "a request was neither answered nor refused")


if __name__ == "__main__":
    main()
