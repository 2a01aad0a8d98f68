"""From what clients saw to figures: pure functions of plain data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from statistics import median
from typing import Any


@dataclass(frozen=True)
class Answer:
    """One request as its client saw it. Times are seconds of one clock.

    Args:
        prompt: its number in the list of prompts.
        first, last: when the first and the last piece of text came; None if none did.
        tokens: of the answer; `counted` says whether the server told or pieces were counted.
        failure: what went wrong, None if nothing did.
        drafted, accepted: draft tokens, where the answer itself tells (llama.cpp's `timings`).
    """

    prompt: int
    sent: float
    ended: float
    first: float | None = None
    last: float | None = None
    tokens: int = 0
    counted: bool = False
    text: str = ""
    failure: str | None = None
    drafted: int = 0
    accepted: int = 0

    @property
    def seconds_to_first_token(self) -> float | None:
        """From sending to the first piece of text."""
        return None if self.first is None else self.first - self.sent

    @property
    def seconds_per_token(self) -> float | None:
        """Between tokens, on average over the answer; None of answers of one token."""
        if self.first is None or self.last is None or self.tokens < 2:
            return None
        return (self.last - self.first) / (self.tokens - 1)


def summarize_level(answers: Sequence[Answer]) -> dict[str, Any]:
    """The figures of all requests that one number of clients sent.

    `tokens_per_second` is over the time from the first request sent to the last one ended, failed ones included.
    """
    good = [answer for answer in answers if answer.failure is None]
    seconds = max(a.ended for a in answers) - min(a.sent for a in answers) if answers else 0.0
    tokens = sum(answer.tokens for answer in good)
    return {
        "requests": len(answers),
        "failures": dict(Counter(a.failure for a in answers if a.failure is not None)),
        "seconds": seconds,
        "tokens": tokens,
        "tokens_counted_by_server": all(answer.counted for answer in good),
        "tokens_per_second": tokens / seconds if seconds else 0.0,
        "first_token_seconds": spread([s for a in good if (s := a.seconds_to_first_token) is not None]),
        "seconds_per_token": spread([s for a in good if (s := a.seconds_per_token) is not None]),
    }


def together(rounds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Several rounds of one level as one: times and tokens are added up, latencies are the rounds' medians."""
    failures: Counter[str] = Counter()
    for of in rounds:
        failures.update(of["failures"])
    seconds, tokens = sum(of["seconds"] for of in rounds), sum(of["tokens"] for of in rounds)
    return {
        "requests": sum(of["requests"] for of in rounds),
        "failures": dict(failures),
        "seconds": seconds,
        "tokens": tokens,
        "tokens_counted_by_server": all(of["tokens_counted_by_server"] for of in rounds),
        "tokens_per_second": tokens / seconds if seconds else 0.0,
        **{name: _medians([of[name] for of in rounds]) for name in ("first_token_seconds", "seconds_per_token")},
    }


def spread(values: Sequence[float]) -> dict[str, float] | None:
    """Median and 95th percentile (the smallest value that 95 % do not exceed); None of nothing."""
    if not values:
        return None
    ordered = sorted(values)
    return {"median": median(ordered), "p95": ordered[ceil(0.95 * len(ordered)) - 1]}


def compare_texts(one: Sequence[Answer], other: Sequence[Answer]) -> dict[str, Any]:
    """Whether two arms gave the same text to the same prompts: `same` of `compared`, and the first that differs."""
    texts = [{a.prompt: a.text for a in reversed(arm) if a.failure is None} for arm in (one, other)]
    both = sorted(texts[0].keys() & texts[1].keys())
    differing = [prompt for prompt in both if texts[0][prompt] != texts[1][prompt]]
    found: dict[str, Any] = {"compared": len(both), "same": len(both) - len(differing)}
    if differing:
        found["first_difference"] = {"prompt": differing[0], "texts": [arm[differing[0]] for arm in texts]}
    return found


def _medians(spreads: Sequence[Mapping[str, float] | None]) -> dict[str, float] | None:
    known = [of for of in spreads if of is not None]
    return {key: median(of[key] for of in known) for key in ("median", "p95")} if known else None
