"""Many replicas behind a router, each of which only sleeps as long as a model would take: what `outrider plan` says of
clients and replicas, against what the clients see.

usage: PYTHONPATH=tests python tests/server/many_replicas.py [MODEL] [--replicas 64] [--loads 0.7 0.9] [--seconds 120]

Clients hold conversations of four turns and pause at random. A turn whose conversation its replica remembers computes
its question alone, another all of it. Replicas, router and clients are processes of their own on this machine.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import multiprocessing
import random
import socket
import ssl
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import mean, median

import httpx
import routers
import uvicorn
from rich.console import Console
from rich.table import Table
from sleeping_replica import Job, StandIn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from outrider.roofline.clients import Clients, Replica
from outrider.roofline.measured import measure_hardware
from outrider.roofline.speedup import Plan
from outrider.roofline.subject import subject_of

TURNS, PROMPT, ANSWER, PAUSE, RUNNING = 4, 128, 64, 10.0, 8
ACCEPTANCE, CONTEXT = 0.7, 512
LETTERS = 4
"""Of a token."""
ARMS: dict[str, tuple[str, ...]] = {
    "no router": (),
    "smg, cache_aware": ("smg", "--policy", "cache_aware"),
    "smg, cache_aware, threshold 32": ("smg", "--policy", "cache_aware", "--balance-abs-threshold", "32"),
    "vllm-router, consistent_hash": ("vllm-router", "--policy", "consistent_hash"),
}
"""Name -> router and options. Without one, each client keeps to one replica."""


@dataclass(frozen=True)
class Turn:
    """One request: seconds to its first token as the client saw and the replica did, and what was computed of it.

    Attributes:
        later, kept: it was not the first of its conversation; its replica remembered that.
        computed: prompt tokens.
    """

    seen: float
    taken: float
    later: bool
    kept: bool
    computed: int
    ended: float


class Sleeper:
    """A stand-in that sleeps for each of its passes."""

    def __init__(self, costs: Replica) -> None:
        self._stand_in, self._seconds = StandIn(costs), costs.prompt_seconds / PROMPT
        self._began: dict[Job, asyncio.Future[None]] = {}
        self._ended: dict[Job, asyncio.Future[None]] = {}
        self._work = asyncio.Event()
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        now = time.monotonic()
        while True:
            done = self._stand_in.next()
            if done is None:
                self._work.clear()
                await self._work.wait()
                now = time.monotonic()
                continue
            now += done.seconds
            await asyncio.sleep(now - time.monotonic())
            for jobs, waited in ((done.begun, self._began), (done.ended, self._ended)):
                for job in jobs:
                    waited.pop(job).set_result(None)

    async def answer(self, body: dict[str, object]) -> AsyncIterator[bytes]:
        """The first token with what it took, and the end."""
        arrived = time.monotonic()
        messages = [message["content"] for message in body["messages"]]  # type: ignore[attr-defined]
        kept = self._stand_in.recall(messages)
        computed = sum(map(len, messages[-1:] if kept else messages)) // LETTERS
        job = Job(computed * self._seconds, int(str(body["max_tokens"])))
        loop = asyncio.get_running_loop()
        began, ended = self._began[job], self._ended[job] = loop.create_future(), loop.create_future()
        self._stand_in.arrive(job)
        self._work.set()
        await began
        first = {"kept": kept, "computed": computed, "taken": time.monotonic() - arrived}
        yield f"data: {json.dumps(first)}\n\n".encode()
        await ended
        yield b"data: [DONE]\n\n"


def serve(costs: Replica, sockets: Sequence[socket.socket]) -> None:
    """A process: one stand-in for each socket, found by its port."""
    sleepers: dict[int, Sleeper] = {}

    async def answer(request: Request) -> Response:
        port = request.scope["server"][1]
        if port not in sleepers:
            sleepers[port] = Sleeper(costs)
        return StreamingResponse(sleepers[port].answer(await request.json()), media_type="text/event-stream")

    async def fine(_request: Request) -> Response:
        return JSONResponse({})

    async def models(_request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [{"id": "model", "object": "model"}]})

    routes = [Route(path, fine) for path in ("/health", "/ready", "/get_server_info", "/get_model_info")]
    routes += [Route("/v1/models", models), Route("/v1/chat/completions", answer, methods=["POST"])]
    server = uvicorn.Server(uvicorn.Config(Starlette(routes=routes), log_level="error", access_log=False))
    server.run(list(sockets))


async def converse(urls: Sequence[str], clients: int, seconds: float) -> list[Turn]:
    """What so many clients see in so many seconds; each keeps to one of the addresses."""
    turns: list[Turn] = []
    until, tls = time.monotonic() + seconds, ssl.create_default_context()
    async with contextlib.AsyncExitStack() as stack:
        each = []
        for number in range(clients):
            options = {"base_url": urls[number % len(urls)], "timeout": None, "verify": tls}
            http = await stack.enter_async_context(httpx.AsyncClient(**options))
            each.append(_client(http, random.Random(number), until, turns))
        await asyncio.gather(*each)
    return turns


async def _client(http: httpx.AsyncClient, rng: random.Random, until: float, turns: list[Turn]) -> None:
    messages: list[dict[str, str]] = []
    while True:
        pause = rng.expovariate(1 / PAUSE)
        if time.monotonic() + pause > until:
            return
        await asyncio.sleep(pause)
        if len(messages) == 2 * TURNS:
            messages = []
        messages.append({"role": "user", "content": _text(rng, PROMPT)})
        answer = 1 + int(rng.expovariate(1 / (ANSWER - 1)))
        body = {"model": "model", "messages": messages, "max_tokens": answer, "stream": True}
        sent, session = time.monotonic(), {"X-Session-Id": messages[0]["content"][:32]}
        async with http.stream("POST", "/v1/chat/completions", json=body, headers=session) as response:
            response.raise_for_status()
            lines = (line async for line in response.aiter_lines() if line.startswith("data: "))
            first = json.loads((await anext(lines)).removeprefix("data: "))
            seen = time.monotonic() - sent
            assert [line async for line in lines] == ["data: [DONE]"]
        found = (first["taken"], len(messages) > 1, first["kept"], first["computed"])
        turns.append(Turn(seen, *found, ended=time.monotonic()))
        messages.append({"role": "assistant", "content": _text(rng, answer)})


def _text(rng: random.Random, tokens: int) -> str:
    return "".join(rng.choices("abcdefghi", k=LETTERS * tokens))


def _clients_at(costs: Replica, load: float) -> int:
    """How many a replica needs for a load."""
    return next(clients for clients in range(1, 10_000) if costs.served(clients).load >= load)


def _seen(turns: Sequence[Turn], seconds: float) -> list[str]:
    """Median and 99th percentile of the seconds to the first token, and tokens a second."""
    seen = sorted(turn.seen for turn in turns)
    return [f"{figure:.2f}" for figure in (median(seen), seen[len(seen) * 99 // 100], len(turns) * ANSWER / seconds)]


@contextlib.contextmanager
def _addresses(urls: Sequence[str], router: str = "", *options: str) -> Iterator[Sequence[str]]:
    """The replicas', or that of a router in front of them."""
    if not router:
        yield urls
        return
    with routers.running(router, urls, *options) as url:
        yield [url]


def main() -> None:
    """The program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="demo")
    parser.add_argument("--replicas", type=int, default=64)
    parser.add_argument("--loads", type=float, nargs="+", default=[0.7, 0.9])
    parser.add_argument("--seconds", type=float, default=120.0)
    given = parser.parse_args()
    subject = subject_of(given.model, None, "auto")
    plan = Plan(subject.target, subject.drafter, measure_hardware(subject.target.main_format, 2), CONTEXT)
    asked = Clients(PROMPT, ANSWER, PAUSE)
    costs = Replica(plan, asked, RUNNING, ACCEPTANCE)
    print(
        f"{subject.name}: {costs.prompt_seconds:.2f} s for a prompt of {PROMPT} tokens, {costs.token_seconds[0]:.3f} s "
        f"for a token, {costs.token_seconds[-1]:.3f} s beside {RUNNING - 1} others"
    )
    sockets = [socket.create_server(("127.0.0.1", 0), backlog=1024) for _ in range(given.replicas)]
    urls = [f"http://127.0.0.1:{each.getsockname()[1]}" for each in sockets]
    process = multiprocessing.get_context("fork").Process(target=serve, args=(costs, sockets))
    process.start()
    table = Table("load", "clients", "", "median", "99 %", "tok/s", "kept", "added ms", "99 %")
    try:
        for load, arm in itertools.product(given.loads, ARMS):
            clients = _clients_at(costs, load)
            with _addresses(urls, *ARMS[arm]) as addresses:
                began = time.monotonic()
                turns = asyncio.run(converse(addresses, clients * given.replicas, given.seconds))
            steady = [turn for turn in turns if began + given.seconds / 4 < turn.ended < began + given.seconds]
            added = sorted(1000 * (turn.seen - turn.taken) for turn in steady)
            kept = mean(turn.kept for turn in steady if turn.later)
            computed = round(mean(turn.computed for turn in steady))
            planned = Replica(plan, replace(asked, prompt=computed), RUNNING, ACCEPTANCE).served(clients)
            row = (f"{load:.0%}", f"{clients * given.replicas}", arm)
            table.add_row(
                *row,
                *_seen(steady, 0.75 * given.seconds),
                f"{kept:.1%}",
                f"{median(added):.2f}",
                f"{added[len(added) * 99 // 100]:.1f}",
            )
            figures = (planned.first_token.median, planned.first_token.most, planned.tokens_per_second * given.replicas)
            table.add_row("", "", f"planned, prompt {computed}", *(f"{figure:.2f}" for figure in figures))
            print(f"load {load:.0%}, {arm}: done", file=sys.stderr)
    finally:
        process.kill()
        process.join()
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
