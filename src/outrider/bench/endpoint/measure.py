"""`outrider bench endpoint`: a closed loop of clients, level by level, two arms interleaved."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import cycle, islice, zip_longest
from os.path import commonprefix
from time import perf_counter
from typing import Any

import httpx
import numpy as np

from outrider.bench.endpoint.request import Answer, ask, open_client
from outrider.bench.endpoint.server import Arm, DraftCounts, list_models, read_metrics
from outrider.bench.interleave import turns
from outrider.bench.prompt import Prompt
from outrider.bench.suite import shipped_prompts
from outrider.console import error_console, progress_bar
from outrider.errors import UsageError

MOST_CLIENTS = 1024
_TURNS = 2
"""Of each of two arms at each level: A B, then B A, so that a drift of the machine affects both equally."""

Job = tuple[int, str]
"""The number of a request in its level, and its prompt."""


def client_counts(text: str) -> list[int]:
    """`1,2,4` -> [1, 2, 4].

    Raises:
        UsageError: the text is not a list of numbers from 1 to 1024.
    """
    parts = [part.strip() for part in text.split(",")]
    counts = [int(part) for part in parts if part.isdecimal() and len(part) < 6]
    if len(counts) != len(parts) or not all(1 <= count <= MOST_CLIENTS for count in counts):
        raise UsageError(f"--clients {text} is no list of numbers from 1 to {MOST_CLIENTS}: give one like 1,2,4,8")
    return counts


async def measure_endpoint(
    arms: Sequence[Arm], clients: Sequence[int], requests: int, api_key: str | None
) -> dict[str, Any]:
    """Measures one server, or compares two arms.

    Args:
        arms: one or two; a model of "" becomes the first that the server lists.
        clients: the levels.
        requests: of each arm at each level, more where that is too few for every client to have one in each turn.

    Raises:
        UsageError: the server cannot be measured; the message says why.
    """
    if api_key and not (api_key.isascii() and api_key.isprintable()):
        raise UsageError("the API key has characters that HTTP cannot carry: correct --api-key or OPENAI_API_KEY")
    texts, rounds = rotation(shipped_prompts()), _TURNS if len(arms) > 1 else 1
    wanted = [max(requests, count * rounds) for count in clients]
    async with open_client(api_key) as http:
        # The last prompts: the levels start with the first, which no prefix cache may hold.
        arms = [await _probe(http, arm, texts[-1 - i]) for i, arm in enumerate(arms)]
        levels, prompts = [], cycle(texts)
        with progress_bar() as progress:
            task = progress.add_task("measuring", total=sum(wanted) * len(arms))
            for count, number in zip(clients, wanted, strict=True):
                progress.update(task, description=f"measuring at {count} clients")
                jobs = list(enumerate(islice(prompts, number)))
                levels.append(await _measure_level(http, arms, count, jobs, rounds, lambda: progress.advance(task)))
    return {
        "arms": [arm.as_dict() for arm in arms],
        "max_tokens": arms[0].max_tokens,
        "temperature": arms[0].temperature,
        "levels": levels,
    }


async def _probe(http: httpx.AsyncClient, arm: Arm, prompt: str) -> Arm:
    """The arm with its model, after one request that is not counted.

    Raises:
        UsageError: the server lists no model and none is given, or the request was answered with a 4xx other than 429.
    """
    models = await list_models(http, arm.base)
    if not arm.body("")["model"]:
        if not models:
            raise UsageError(f"{arm.base}/models lists no models: correct the URL, or name the model with --model")
        arm = replace(arm, model=models[0])
    first = await ask(http, arm, 0, prompt)
    console = error_console()
    console.print(f"{arm.name}: {arm.address}, model {arm.body('')['model']}", style="dim", markup=False)
    if first.failure is None and first.usage is None:
        console.print(f"{arm.name}: no token counts from the server, so chunks are counted", style="yellow")
    elif first.failure is not None:
        what = f"{arm.address} did not answer ({first.failure}: {first.message})"
        if first.failure.startswith("HTTP 4") and first.failure != "HTTP 429":
            known = f"; it lists the models {', '.join(models)}" if models else ""
            raise UsageError(f"{what}{known}. Correct the URL, --model, --api-key, --chat/--completions or --extra")
        console.print(f"{arm.name}: {what}", style="yellow", markup=False)
    return arm


@dataclass
class _Tally:
    """The answers, the wall-clock seconds and the draft counts of one arm at one level, over its turns."""

    answers: list[Answer] = field(default_factory=list)
    seconds: float = 0.0
    counted: list[DraftCounts] = field(default_factory=list)

    def figures(self) -> dict[str, Any]:
        drafts = self.counted or [answer.draft for answer in self.answers if answer.draft is not None]
        return level_figures(self.answers, self.seconds) | {"drafting": draft_figures(drafts)}


async def _measure_level(
    http: httpx.AsyncClient,
    arms: Sequence[Arm],
    clients: int,
    jobs: Sequence[Job],
    rounds: int,
    done: Callable[[], None],
) -> dict[str, Any]:
    tallies = {arm.name: _Tally() for arm in arms}
    for number, order in enumerate(turns(arms, rounds)):
        part = jobs[len(jobs) * number // rounds : len(jobs) * (number + 1) // rounds]
        for arm in order:
            tally, before = tallies[arm.name], await read_metrics(http, arm)
            answers, seconds = await run_closed_loop(http, arm, part, clients, done)
            tally.answers += answers
            tally.seconds += seconds
            after = await read_metrics(http, arm)
            if before and after and (counted := after.since(before)):
                tally.counted.append(counted)
    figures = {name: tally.figures() for name, tally in tallies.items()}
    result: dict[str, Any] = {"clients": clients, "requests": len(jobs), "arms": figures}
    if len(arms) > 1:
        result["ratios"] = ratios(*figures.values())
        texts = [tallies[arm.name].answers for arm in arms]
        result["texts"] = compare_texts(*texts) if all(arm.greedy for arm in arms) else None
    return result


async def run_closed_loop(
    http: httpx.AsyncClient, arm: Arm, jobs: Sequence[Job], clients: int, done: Callable[[], None]
) -> tuple[list[Answer], float]:
    """All jobs, each client taking the next when its last has ended: the answers, and the wall-clock seconds."""
    left = iter(jobs)
    answers: list[Answer] = []

    async def one_client() -> None:
        for number, prompt in left:
            answers.append(await ask(http, arm, number, prompt))
            done()

    started = perf_counter()
    await asyncio.gather(*(one_client() for _ in range(clients)))
    return answers, perf_counter() - started


def level_figures(answers: Sequence[Answer], seconds: float) -> dict[str, Any]:
    """The figures of one arm at one level. Failed requests add to the time and to no other figure.

    Args:
        seconds: the wall-clock of these answers.
    """
    good = [answer for answer in answers if answer.failure is None]
    tokens = sum(answer.tokens for answer in good)
    counted = {"chunks" if answer.usage is None else "usage" for answer in good}
    return {
        "answered": len(good),
        "failures": dict(sorted(Counter(answer.failure for answer in answers if answer.failure).items())),
        "seconds": seconds,
        "output_tokens": tokens,
        "tokens_per_second": tokens / seconds if seconds > 0 else 0.0,
        "time_to_first_token_seconds": _spread(answer.first_seconds for answer in good),
        "time_per_output_token_seconds": _spread(answer.seconds_per_token for answer in good),
        "tokens_counted_by": " and ".join(sorted(counted)) or None,
    }


def _spread(values: Iterable[float | None]) -> dict[str, float | None]:
    """Median and 95th percentile of the known values."""
    known = [value for value in values if value is not None]
    median, p95 = np.percentile(known, [50, 95]).tolist() if known else (None, None)
    return {"median": median, "p95": p95}


def draft_figures(counts: Sequence[DraftCounts]) -> dict[str, Any] | None:
    """The sums of draft counts, acceptance rate and tokens per pass; None if nothing was counted."""
    if not counts:
        return None
    drafted, accepted, passes = (sum(getattr(of, name) for of in counts) for name in ("drafted", "accepted", "passes"))
    return {
        "source": counts[0].source,
        "drafted": drafted,
        "accepted": accepted,
        "acceptance_rate": accepted / drafted if drafted else None,
        "tokens_per_pass": 1 + accepted / passes if passes > 0 else None,
    }


def ratios(first: dict[str, Any], second: dict[str, Any]) -> dict[str, float | None]:
    """The second arm's figures over the first's; None where one of them is missing."""
    times = ("time_to_first_token_seconds", "time_per_output_token_seconds")
    pairs = {"tokens_per_second": (first["tokens_per_second"], second["tokens_per_second"])}
    pairs |= {name: (first[name]["median"], second[name]["median"]) for name in times}
    return {name: b / a if a and b is not None else None for name, (a, b) in pairs.items()}


def compare_texts(first: Sequence[Answer], second: Sequence[Answer]) -> dict[str, Any]:
    """How many answers to the same requests have the same text.

    Returns:
        `compared`, `equal`, and `first_difference`: None, or the `number` of the request and the `position` in
        characters.
    """
    texts = {answer.number: answer.text for answer in second if answer.failure is None}
    pairs = sorted((a.number, a.text, texts[a.number]) for a in first if a.failure is None and a.number in texts)
    differing = [pair for pair in pairs if pair[1] != pair[2]]
    difference = None
    if differing:
        number, *two = differing[0]
        difference = {"number": number, "position": len(commonprefix(two))}  # noqa: RUF071  (characters are meant)
    return {"compared": len(pairs), "equal": len(pairs) - len(differing), "first_difference": difference}


def unanswered(result: dict[str, Any]) -> list[str]:
    """The arms that answered nothing at any level."""
    names = [arm["name"] for arm in result["arms"]]
    return [name for name in names if not any(level["arms"][name]["answered"] for level in result["levels"])]


def rotation(prompts: Sequence[Prompt]) -> list[str]:
    """The texts of prompts, one of each category in turn."""
    by_category: dict[str, list[str]] = {}
    for prompt in prompts:
        by_category.setdefault(prompt.category, []).append(prompt.text)
    return [text for row in zip_longest(*by_category.values()) for text in row if text is not None]
