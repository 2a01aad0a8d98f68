"""The measurement: level by level, two arms in turns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice
from typing import Any

from outrider.bench.endpoint.answer import Answer
from outrider.bench.endpoint.arm import Arm
from outrider.bench.endpoint.client import Client
from outrider.bench.endpoint.draft_counters import Counters, drafting
from outrider.bench.endpoint.figures import compare_texts, duration_range, level_figures, ratios
from outrider.bench.endpoint.load import Job, Level, plan_levels, rotation, run_closed_loop, split
from outrider.bench.endpoint.probe import Probed, probe
from outrider.bench.interleave import turns
from outrider.bench.suite import shipped_prompts
from outrider.console import error_console, progress_bar
from outrider.errors import UsageError

_TURNS = 2
"""Of each arm at each level: A B, then B A, so that a drift of the machine hits both alike. What one server keeps for
both arms, of prompts (a prefix cache) and of answers (to draft from), does so too, but an arm that drafts from earlier
answers gains more by it than one that does not: the report says so."""

MOST_CLIENTS = 1024


def client_counts(text: str) -> list[int]:
    """`1,2,4` -> [1, 2, 4].

    Raises:
        UsageError: it is no such list.
    """
    parts = [part.strip() for part in text.split(",")]
    counts = [int(part) for part in parts if part.isdecimal() and len(part) < 6]
    if len(counts) != len(parts) or not all(1 <= count <= MOST_CLIENTS for count in counts):
        raise UsageError(f"--clients {text} is no list of numbers from 1 to {MOST_CLIENTS}: give one like 1,2,4,8")
    return counts


@dataclass
class _Tally:
    """What one arm did at one level so far."""

    answers: list[Answer] = field(default_factory=list)
    seconds: float = 0.0
    readings: list[tuple[Counters | None, Counters | None]] = field(default_factory=list)

    def figures(self) -> dict[str, Any]:
        return level_figures(self.answers, self.seconds) | {"drafting": drafting(self.readings, self.answers)}


async def measure_endpoint(
    arms: Sequence[Arm], clients: Sequence[int], requests: int, api_key: str | None
) -> dict[str, Any]:
    """Measures one server, or compares two arms.

    Before it starts it says what it will send and how long that will take, judged by a request that is not counted.

    Args:
        arms: one or two; a model of "" becomes the first that the server lists.
        clients: the levels.
        requests: of each arm at each level, more where that is too few to keep all clients busy.

    Raises:
        UsageError: no request could succeed; the sentence says why.
    """
    texts = rotation(shipped_prompts())
    levels = plan_levels(clients, requests, _TURNS if len(arms) > 1 else 1)
    async with Client(api_key) as client:
        # The rotation's last prompts: the levels start with its first, which no prefix cache shall know.
        probed = [await probe(client, arm, texts[-1 - i]) for i, arm in enumerate(arms)]
        arms = [of.arm for of in probed]
        _announce(probed, levels)
        prompts = cycle(texts)
        measured = []
        with progress_bar() as progress:
            task = progress.add_task("asking", total=sum(level.requests for level in levels) * len(arms))
            for level in levels:
                progress.update(task, description=f"asking ({level.clients} clients)")
                jobs = list(enumerate(islice(prompts, level.requests)))
                measured.append(await _measure_level(client, arms, level, jobs, lambda: progress.advance(task)))
    return {
        "arms": [arm.as_dict() for arm in arms],
        "shared_server": len({arm.base for arm in arms}) < len(arms),
        "max_tokens": arms[0].max_tokens,
        "temperature": arms[0].temperature,
        "levels": measured,
    }


async def _measure_level(
    client: Client, arms: Sequence[Arm], level: Level, jobs: Sequence[Job], ended: Callable[[], None]
) -> dict[str, Any]:
    tallies = {arm.name: _Tally() for arm in arms}
    parts = split(jobs, _TURNS if len(arms) > 1 else 1)
    for part, order in zip(parts, turns(arms, len(parts)), strict=True):
        for arm in order:
            tally = tallies[arm.name]
            before = await client.counters(arm)
            answers, seconds = await run_closed_loop(client, arm, part, level.clients, ended)
            tally.answers += answers
            tally.seconds += seconds
            tally.readings.append((before, await client.counters(arm)))
    figures = {name: tally.figures() for name, tally in tallies.items()}
    result: dict[str, Any] = {"clients": level.clients, "requests": level.requests, "arms": figures}
    if len(arms) > 1:
        first, second = (tallies[arm.name].answers for arm in arms)
        result["ratios"] = ratios(*figures.values())
        greedy = all(arm.greedy for arm in arms)
        result["texts"] = compare_texts(first, second) if greedy else None
        if greedy and result["texts"]["first_difference"]:
            difference = result["texts"]["first_difference"]
            difference["prompt"] = jobs[difference["number"]][1]
    return result


def _announce(probed: Sequence[Probed], levels: Sequence[Level]) -> None:
    console = error_console()
    for of in probed:
        arm, failure = of.arm, of.first.failure
        body = arm.body("")
        extra = f" with {dict(arm.extra)}" if arm.extra else ""
        limit = body.get("max_tokens", "any number of")
        what = f"{arm.name}: {arm.address}, model {body['model']}, answers of up to {limit} tokens{extra}"
        console.print(what, style="dim", markup=False)
        if failure is not None:
            console.print(f"{arm.name}: a first request failed: {failure.message}", style="yellow", markup=False)
        elif not of.first.counted_by_server:
            console.print(f"{arm.name}: no token counts from the server, so chunks are counted", style="yellow")
    requests = sum(level.requests for level in levels)
    clients = ", ".join(f"{level.requests} at {level.clients}" for level in levels)
    console.print(
        f"{requests * len(probed)} requests ({clients} clients{', to each arm' if len(probed) > 1 else ''}): "
        f"{_duration(probed, levels)}.",
        style="dim",
    )


def _duration(probed: Sequence[Probed], levels: Sequence[Level]) -> str:
    if any(of.first.failure is not None for of in probed):
        return "how long they take is not known"
    seconds = sum(of.first.last_seconds for of in probed)
    least, most = duration_range(seconds, [(level.clients, level.requests) for level in levels])
    low, high = max(round(least), 1), max(round(most), 1)
    if high < 90:
        return f"about {low} to {high} seconds" if low < high else f"about {high} seconds"
    low, high = max(round(least / 60), 1), round(most / 60)
    return f"about {low} to {high} minutes" if low < high else f"about {high} minutes"


def unanswered(result: dict[str, Any]) -> list[str]:
    """The arms that answered nothing at any level."""
    names = [arm["name"] for arm in result["arms"]]
    return [name for name in names if not any(level["arms"][name]["answered"] for level in result["levels"])]
