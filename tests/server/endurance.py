"""Sends a server thousands of mixed requests, many at once, some of whose clients leave, and looks for what breaks.

usage: make endurance, or PYTHONPATH=tests python tests/server/endurance.py [--requests N] [--seed S]
           [--model tiny|demo] [--clients N] [--leaving SHARE]

Requests go out in laps. After each lap no request may be left and every place has to be free; then the answers that
came beside clients that left, and a share of the others, are asked for again, alone and without drafting, and have to
be equal: text, finish reason, counts, log-probabilities. Memory, open files and threads are noted and must not grow.
What differs is printed with the request and the lap's seed, which repeats it: --seed S --requests 1.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from server import clients
from server.mixed_requests import Case, Mixture
from server.server_process import PREFIX_CACHE_BYTES, RUNNING, WAITING, Seen, ServerProcess

LAP = 200
BURST = RUNNING + WAITING + 16
"""More than find a place."""
_SETTLED_SECONDS = 5.0
"""By then no request is left; cancelled ones go between two passes, which take milliseconds here."""
_AGAIN_SECONDS = 0.1
# Memory of the second quarter of the laps against the last: a leak of this many bytes a request is found in 10,000
# requests, and the noise of the system's allocator, some hundred kilobytes, is not taken for one.
_BYTES_A_REQUEST = 200
_NOISE_BYTES = 1 << 20
_MORE_FILES, _MORE_THREADS = 2, 2
_COLUMNS = (
    MofNCompleteColumn(),
    TextColumn("requests, {task.fields[mebibytes]:.1f} MiB"),
    BarColumn(),
    TimeElapsedColumn(),
    TimeRemainingColumn(),
)


class BrokenError(Exception):
    """What went wrong, with the request."""


@dataclass
class Tally:
    """What happened so far.

    routes: requests by path. seen: requests sent by then, and the process, after each lap.
    """

    sent: int = 0
    compared: int = 0
    what: Counter[str] = field(default_factory=Counter)
    routes: Counter[str] = field(default_factory=Counter)
    seen: list[tuple[int, Seen]] = field(default_factory=list)


@dataclass
class _Answered:
    case: Case
    answer: clients.Answer
    began: float
    ended: float


class Lap:
    """Some hundred requests to a running server.

    Args:
        seed: of what is sent.
        at_once: clients at the same time.
        share: of the answers that came beside nobody who left: how many are compared.
    """

    def __init__(
        self,
        server: ServerProcess,
        tally: Tally,
        seed: int,
        *,
        requests: int,
        at_once: int,
        leaving: float,
        share: float,
    ) -> None:
        self._server, self._tally, self._share = server, tally, share
        self._rng = random.Random(seed)
        about = server.about()
        can = about["outrider"]
        mixture = Mixture(
            self._rng, context=about["max_model_len"], chat=can["chat"], tools="mtp" in can["drafters"], leaving=leaving
        )
        self._cases = [mixture.case() for _ in range(requests)]
        self._burst = mixture.burst(BURST) if requests >= LAP else []
        self._at_once = asyncio.Semaphore(at_once)
        self._answered: list[_Answered] = []
        self._left: list[tuple[float, float]] = []  # when somebody left: from sending on

    async def run(self) -> None:
        """Sends all, waits for quiet, compares.

        Raises:
            BrokenError: something was not as it has to be.
        """
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=32)
        async with httpx.AsyncClient(base_url=self._server.url, timeout=None, limits=limits) as client:
            async with asyncio.TaskGroup() as group:
                for case in self._cases:
                    group.create_task(self._send(client, case))
            async with asyncio.TaskGroup() as group:
                for case in self._burst:
                    group.create_task(self._send_once(client, case))
            await self._settle(client)
            for answered in self._to_compare():
                await self._compare(client, answered)
            await self._settle(client)
        self._tally.sent += len(self._cases) + len(self._burst)
        self._tally.routes.update(case.path for case in (*self._cases, *self._burst))

    async def _send(self, client: httpx.AsyncClient, case: Case) -> None:
        async with self._at_once:
            await asyncio.sleep(0)
            if case.leaves is None:
                while (await self._send_once(client, case)).status == 429:
                    await asyncio.sleep(_AGAIN_SECONDS)
                return
            began = time.monotonic()
            url = httpx.URL(self._server.url)
            problem = await clients.leave(url.host, url.port or 80, case)
            self._left.append((began, time.monotonic()))
            self._tally.what[f"clients that left {case.leaves}"] += 1
            if problem:
                raise BrokenError(f"{problem}: {case}")

    async def _send_once(self, client: httpx.AsyncClient, case: Case) -> clients.Answer:
        began = time.monotonic()
        answer = await clients.read(client, case)
        if answer.broken is not None:
            raise BrokenError(f"{answer.broken}: {case}")
        if answer.status == 429:
            if answer.retry_after is None:
                raise BrokenError(f"429 without when to come back: {case}")
            self._tally.what["told to come back later"] += 1
            return answer
        # A grammar may come to where no token fits; a whole answer then is a 400, and the same one alone.
        if answer.status != case.status and not (answer.status == 400 and "grammar cannot go on" in str(answer.error)):
            raise BrokenError(f"the answer is {answer.status} ({answer.error}) instead of {case.status}: {case}")
        self._tally.what["refused" if case.status != 200 else "streamed" if case.streams else "answered"] += 1
        if case.status == 200:
            self._answered.append(_Answered(case, answer, began, time.monotonic()))
        return answer

    def _to_compare(self) -> Iterator[_Answered]:
        for answered in self._answered:
            beside = any(began < answered.ended and answered.began < ended for began, ended in self._left)
            if beside or self._rng.random() < self._share:
                yield answered

    async def _compare(self, client: httpx.AsyncClient, answered: _Answered) -> None:
        alone = await clients.read(client, answered.case.alone())
        self._tally.compared += 1
        if alone.broken is not None or not answered.answer.same(alone):
            what = alone.broken or answered.answer.unlike(alone)
            raise BrokenError(f"the answer, and alone without drafting, differ in {what}\n{answered.case}")

    async def _settle(self, client: httpx.AsyncClient) -> None:
        """Waits until every place is free."""
        until = time.monotonic() + _SETTLED_SECONDS
        while True:
            if not self._server.running:
                raise BrokenError("the server ended")
            health = (await client.get("/health")).json()
            metrics = self._server.metrics()
            held = metrics["kv_cache_sequences_in_use"]
            if (health["running"], health["waiting"], held) == (0, 0, 0):
                break
            if time.monotonic() > until:
                raise BrokenError(f"all clients are gone, and {health}, with {held:.0f} sequences of keys and values")
            await asyncio.sleep(0.02)
        if metrics["prefix_cache_bytes"] > PREFIX_CACHE_BYTES:
            raise BrokenError(f"the prefix cache takes {metrics['prefix_cache_bytes']:.0f} bytes, more than it may")


def growth(seen: list[tuple[int, Seen]]) -> str | None:
    """What grew over the laps, or None. The first quarter is warm-up: caches fill."""
    quarter = len(seen) // 4
    if quarter < 2:
        return None
    second, last = seen[quarter : 2 * quarter], seen[-quarter:]
    requests = statistics.fmean(sent for sent, _ in last) - statistics.fmean(sent for sent, _ in second)
    bounds = {
        "resident": _NOISE_BYTES + _BYTES_A_REQUEST * requests,
        "files": _MORE_FILES,
        "threads": _MORE_THREADS,
    }
    for name, bound in bounds.items():
        before, after = (statistics.median(getattr(one, name) for _, one in part) for part in (second, last))
        if after - before > bound:
            values = ", ".join(str(getattr(one, name)) for _, one in seen)
            return f"{name}, by {after - before:.0f} in {requests:.0f} requests; after each lap: {values}"
    return None


@contextlib.contextmanager
def served(model: str, folder: Path) -> Iterator[ServerProcess]:
    """A server of the demo, or of a tiny model with a drafter."""
    if model == "demo":
        with ServerProcess("demo", None, context=2048) as server:
            yield server
        return
    import transformers
    from server.served_checkpoint import save_served

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    target, drafter = save_served(folder)
    with ServerProcess(target, drafter, context=384) as server:
        yield server


def endure(
    server: ServerProcess,
    *,
    requests: int,
    seed: int = 0,
    at_once: int = 12,
    leaving: float = 0.15,
    share: float = 0.05,
    said: Callable[[Tally], None] | None = None,
) -> Tally:
    """Sends so many requests and more, in whole laps; `said` is told after each.

    Raises:
        BrokenError: what broke, with what it takes to see it again.
    """
    tally = Tally()
    while tally.sent < requests:
        number = seed + len(tally.seen)
        lap = Lap(server, tally, number, requests=min(LAP, requests), at_once=at_once, leaving=leaving, share=share)
        try:
            asyncio.run(lap.run())
        except ExceptionGroup as group:  # of several at once, the first
            problems = group.split(BrokenError)[0]
            if problems is None:
                raise
            raise BrokenError(f"in the lap of --seed {number}: {problems.exceptions[0]}") from group
        except BrokenError as problem:
            raise BrokenError(f"in the lap of --seed {number}: {problem}") from problem
        tally.seen.append((tally.sent, server.seen()))
        if said:
            said(tally)
    problem = growth(tally.seen)
    if problem:
        raise BrokenError(f"something grows: {problem}")
    return tally


def summary(tally: Tally) -> str:
    """What was done, in lines."""
    first, last = tally.seen[len(tally.seen) // 4][1], tally.seen[-1][1]
    lines = [f"{tally.sent} requests; {tally.compared} answers asked for again, alone: all equal"]
    lines += [f"{count:6} {what}" for what, count in (*sorted(tally.routes.items()), *sorted(tally.what.items()))]
    lines.append(
        f"resident memory {first.resident / 2**20:.1f} MiB after a quarter, {last.resident / 2**20:.1f} at the end; "
        f"open files {first.files}, {last.files}; threads {first.threads}, {last.threads}"
    )
    return "\n".join(lines)


def main() -> int:
    """The program; its exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", choices=["tiny", "demo"], default="tiny")
    parser.add_argument("--clients", type=int, default=12, help="at the same time")
    parser.add_argument("--leaving", type=float, default=0.15, metavar="SHARE", help="of the clients that leave")
    given = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        served(given.model, Path(folder)) as server,
        Progress(*_COLUMNS, console=Console(stderr=True)) as progress,
    ):
        task = progress.add_task("", total=given.requests, mebibytes=0.0)

        def said(tally: Tally) -> None:
            mebibytes = tally.seen[-1][1].resident / 2**20
            progress.update(task, completed=min(tally.sent, given.requests), mebibytes=mebibytes)

        try:
            tally = endure(
                server,
                requests=given.requests,
                seed=given.seed,
                at_once=given.clients,
                leaving=given.leaving,
                said=said,
            )
        except BrokenError as problem:
            progress.stop()
            print(f"BROKEN {problem}", file=sys.stderr)
            return 1
    print(summary(tally))
    return 0


if __name__ == "__main__":
    sys.exit(main())
