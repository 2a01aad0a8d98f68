"""The load: so many clients, each with one request at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise, zip_longest
from time import perf_counter

from outrider.bench.endpoint.answer import Answer
from outrider.bench.endpoint.arm import Arm
from outrider.bench.endpoint.client import Client
from outrider.bench.prompt import Prompt
from outrider.bench.suite import CATEGORIES

Job = tuple[int, str]
"""The number of a request in its level, and its prompt."""


@dataclass(frozen=True)
class Level:
    """So many requests of each arm, at so many clients."""

    clients: int
    requests: int


def plan_levels(clients: Sequence[int], requests: int, turns: int) -> list[Level]:
    """One level for each number of clients, each with enough requests that in every turn all clients have one."""
    return [Level(number, max(requests, number * turns)) for number in clients]


def rotation(prompts: Sequence[Prompt]) -> list[str]:
    """The texts of prompts, one of each category in turn."""
    by_category = [[prompt.text for prompt in prompts if prompt.category == category] for category in CATEGORIES]
    return [text for row in zip_longest(*by_category) for text in row if text is not None]


def split(jobs: Sequence[Job], turns: int) -> list[Sequence[Job]]:
    """The jobs in so many parts whose lengths differ by one at most."""
    edges = [len(jobs) * turn // turns for turn in range(turns + 1)]
    return [jobs[start:end] for start, end in pairwise(edges)]


async def run_closed_loop(
    client: Client, arm: Arm, jobs: Sequence[Job], clients: int, ended: Callable[[], None]
) -> tuple[list[Answer], float]:
    """All jobs, each client taking the next when its former has ended.

    Args:
        ended: called after every request.

    Returns:
        The answers as they ended, and the wall-clock seconds.
    """
    left = iter(jobs)
    answers: list[Answer] = []

    async def one_client() -> None:
        for number, prompt in left:
            answers.append(await client.ask(arm, number, prompt))
            ended()

    started = perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(clients):
            group.create_task(one_client())
    return answers, perf_counter() - started
