"""What replicas behind a router keep and lose: the share of a prompt that is cached, and requests when one stops.

As a program it prints the figures of docs/replicas.md:

    PYTHONPATH=tests .venv/bin/python tests/server/router_trials.py
"""

from __future__ import annotations

import asyncio
import json
import random
import signal
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from itertools import product
from pathlib import Path

import httpx
from rich.console import Console
from rich.table import Table
from server.router_process import DRAIN_SECONDS, Routed, routed

KEEPING = {"smg": "cache_aware", "vllm-router": "consistent_hash"}
"""Router -> the policy that keeps a conversation on its replica, by its text or by the header X-Session-Id."""
REPLICAS = (2, 4)
FAULTS = (signal.SIGTERM, signal.SIGKILL)
CONVERSATIONS_PER_REPLICA, TURNS = 3, 5
STREAMS_PER_REPLICA, AFTER_PER_REPLICA = 3, 4
_LONG = {"model": "tiny", "max_tokens": 300, "ignore_eos": True, "drafting": "off", "stream": True}
_SHORT = _LONG | {"max_tokens": 4}
_SECONDS = 600.0


@dataclass(frozen=True)
class Cached:
    """What turns after the first found in the cache.

    Attributes:
        turns, kept: all of them, and those for which the whole prompt of the turn before was cached.
        share: of their prompts' tokens, those that were cached.
    """

    turns: int
    kept: int
    share: float


def converse(routed: Routed, seed: int = 0) -> Cached:
    """Conversations at once, each of which names itself in a header: a round robin brings one back by chance only."""
    return asyncio.run(_converse(routed, random.Random(seed)))


async def _converse(routed: Routed, rng: random.Random) -> Cached:
    numbers = range(CONVERSATIONS_PER_REPLICA * len(routed.replicas))
    questions = [[_text(rng, 120) for _ in range(TURNS)] for _ in numbers]
    async with httpx.AsyncClient(base_url=routed.url, timeout=_SECONDS) as client:
        turns = await asyncio.gather(*(_conversation(client, str(n), questions[n]) for n in numbers))
    later = [turn for each in turns for turn in each]
    kept = sum(cached >= before for before, _, cached in later)
    return Cached(len(later), kept, sum(cached for *_, cached in later) / sum(prompt for _, prompt, _ in later))


async def _conversation(client: httpx.AsyncClient, name: str, questions: Sequence[str]) -> list[tuple[int, int, int]]:
    """Of each turn after the first: prompt tokens of the turn before, its own, and those of them that were cached."""
    messages: list[dict[str, str]] = []
    turns, before = [], 0
    for question in questions:
        messages.append({"role": "user", "content": question})
        body = {"model": "tiny", "messages": messages, "max_tokens": 8, "ignore_eos": True, "seed": 1}
        answer = await client.post("/v1/chat/completions", json=body, headers={"X-Session-Id": name})
        found = answer.raise_for_status().json()
        prompt, cached = found["usage"]["prompt_tokens"], found["usage"]["prompt_tokens_details"]["cached_tokens"]
        if before:
            turns.append((before, prompt, cached))
        before = prompt
        messages.append(found["choices"][0]["message"])
    return turns


def _text(rng: random.Random, letters: int) -> str:
    return "".join(rng.choices("abcdez ", k=letters))


@dataclass(frozen=True)
class Outcome:
    """One replica stopped in the midst of streams; requests followed at once.

    Attributes:
        streams: all that ran.
        held: of them, those of the replica that stopped.
        broken: streams that did not come to their end.
        later, failed: requests sent after the signal, and those of them that got no whole answer.
        status: the replica's exit status.
    """

    streams: int
    held: int
    broken: int
    later: int
    failed: int
    status: int


def stop_one(routed: Routed, number: signal.Signals) -> Outcome:
    """Signals the replica that has the most of the running streams, and sends more requests at once."""
    return asyncio.run(_stop_one(routed, number))


async def _stop_one(routed: Routed, number: signal.Signals) -> Outcome:
    replicas = routed.replicas
    rng = random.Random(1)
    async with httpx.AsyncClient(base_url=routed.url, timeout=_SECONDS) as client:
        begun = [asyncio.Event() for _ in range(STREAMS_PER_REPLICA * len(replicas))]
        streams = [asyncio.create_task(_whole(client, _LONG | {"prompt": _text(rng, 60)}, each)) for each in begun]
        async with asyncio.timeout(_SECONDS):
            await asyncio.gather(*(each.wait() for each in begun))
        running = {replica: httpx.get(f"{replica.url}/health").json()["running"] for replica in replicas}
        stopped = max(replicas, key=lambda replica: running[replica])
        stopped.signal(number)
        bodies = [_SHORT | {"prompt": _text(rng, 60)} for _ in range(AFTER_PER_REPLICA * len(replicas))]
        later = await asyncio.gather(*(_whole(client, body) for body in bodies))
        ended = await asyncio.gather(*streams)
    return Outcome(
        streams=len(streams),
        held=running[stopped],
        broken=ended.count(False),
        later=len(later),
        failed=later.count(False),
        status=stopped.wait(DRAIN_SECONDS),
    )


async def _whole(client: httpx.AsyncClient, body: dict[str, object], begun: asyncio.Event | None = None) -> bool:
    """Whether a streamed completion comes to its end, with the finish reason and [DONE]."""
    events = []
    try:
        async with client.stream("POST", "/v1/completions", json=body) as stream:
            async for line in stream.aiter_lines():
                if line.startswith("data: "):
                    events.append(line.removeprefix("data: "))
                    if begun is not None:
                        begun.set()
    except httpx.TransportError:
        return False
    if len(events) < 2 or events[-1] != "[DONE]":
        return False
    choices = json.loads(events[-2]).get("choices")
    return bool(choices) and choices[0]["finish_reason"] == "length"


def main() -> None:
    """The program."""
    from server.served_checkpoint import save_served

    shares = Table("router", "replicas", "policy", "turns", "kept", "cached")
    faults = Table("router", "replicas", "signal", "streams", "held", "broken", "later", "failed")
    with tempfile.TemporaryDirectory() as folder:
        model, drafter = save_served(Path(folder))
        for router, count in product(KEEPING, REPLICAS):
            for policy in dict.fromkeys((KEEPING[router], "cache_aware", "round_robin")):
                with routed(router, model, drafter, count, policy=policy) as behind:
                    cached = converse(behind)
                    shares.add_row(
                        router, str(count), policy, str(cached.turns), str(cached.kept), f"{cached.share:.0%}"
                    )
                    for number in FAULTS if policy == KEEPING[router] else ():
                        found = stop_one(behind, number)
                        cells = (count, number.name, *astuple(found)[:-1])
                        faults.add_row(router, *map(str, cells))
                        behind.restore()
            print(f"{router} with {count} replicas: done", file=sys.stderr)
    console = Console()
    console.print(shares, faults)


if __name__ == "__main__":
    main()
