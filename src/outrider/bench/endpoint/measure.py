"""Asks one server, or two in turns, the same prompts by more and more clients at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

from outrider.bench.endpoint.client import Client, EndpointError
from outrider.bench.endpoint.counters import drafting_between
from outrider.bench.endpoint.statistics import Answer, compare_texts, summarize_level, together
from outrider.bench.interleave import turns


@dataclass(frozen=True)
class Load:
    """What is sent.

    Args:
        levels: numbers of clients, each of which sends its next request when its former one has ended.
        requests: of a level, round and arm.
        rounds: of every level.
    """

    prompts: Sequence[str]
    levels: Sequence[int]
    requests: int
    rounds: int


async def measure_endpoint(
    clients: Sequence[Client], load: Load, *, announce: Callable[[float], None], advance: Callable[[str], None]
) -> dict[str, Any]:
    """The figures of every level for each arm, and of two arms whether their texts are the same.

    Args:
        announce: told how many seconds it will take, judged by one request to each arm that is not counted.
        advance: called after every answer with what is being measured.

    Raises:
        EndpointError: a server cannot be measured, or every request failed.
    """
    seconds = 0.0
    for client in clients:
        first = await client.ask(0, load.prompts[0])
        if first.failure:
            raise EndpointError(f"{client.target.url}: the first request failed: {first.failure}")
        seconds += first.ended - first.sent
    announce(seconds * load.requests * load.rounds * sum(1 / min(level, 4) for level in load.levels))
    answers: list[list[Answer]] = [[] for _ in clients]
    levels = []
    for level in load.levels:
        figures: list[list[dict[str, Any]]] = [[] for _ in clients]
        for order in turns(range(len(clients)), load.rounds):
            for arm in order:
                what = f"{level} at once, {clients[arm].target.url}"
                before = await clients[arm].metrics()
                came = await _level(clients[arm], load, level, lambda what=what: advance(what))  # type: ignore[misc]
                drafting = drafting_between(before, await clients[arm].metrics()) or _told(came)
                figures[arm].append(summarize_level(came) | {"drafting": drafting})
                answers[arm] += came
        levels.append({"clients": level, "arms": [together(of) | _drafting(of) for of in figures]})
    if all(answer.failure for arm in answers for answer in arm):
        raise EndpointError(f"every request failed: {answers[0][0].failure}")
    result: dict[str, Any] = {
        "arms": [{"url": c.target.url, "model": c.model, "extra": dict(c.target.extra)} for c in clients],
        "levels": levels,
    }
    if len(clients) == 2:
        result["texts"] = compare_texts(*answers)
    return result


async def _level(client: Client, load: Load, level: int, advance: Callable[[], None]) -> list[Answer]:
    """`level` clients share the requests; prompts are taken in order, over and over."""
    numbers, came = count(), list[Answer]()

    async def one() -> None:
        while (number := next(numbers)) < load.requests:
            prompt = number % len(load.prompts)
            came.append(await client.ask(prompt, load.prompts[prompt]))
            advance()

    await asyncio.gather(*(one() for _ in range(level)))
    return came


def _told(answers: Sequence[Answer]) -> dict[str, Any] | None:
    """Drafting as the answers themselves tell it."""
    drafted, accepted = sum(a.drafted for a in answers), sum(a.accepted for a in answers)
    if not drafted:
        return None
    return {"drafted": drafted, "accepted": accepted, "acceptance_rate": accepted / drafted}


def _drafting(rounds: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The last round's account of drafting stands for all: the prompts are the same."""
    return {"drafting": rounds[-1]["drafting"]}
