"""The figures of a measurement: pure functions of the answers and the times."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from outrider.bench.endpoint.answer import Answer, DraftCounts

_SHOWN = 40
"""Characters shown around the first difference of two texts."""


def spread(values: Iterable[float | None]) -> dict[str, float | None]:
    """Median and 95th percentile of what is known, in the values' own unit; None where nothing is."""
    known = [value for value in values if value is not None]
    if not known:
        return {"median": None, "p95": None}
    median, p95 = np.percentile(known, [50, 95])
    return {"median": float(median), "p95": float(p95)}


def level_figures(answers: Sequence[Answer], seconds: float) -> dict[str, Any]:
    """What one arm did at one number of clients. Failed requests add to the time and to no other figure.

    Args:
        seconds: the wall-clock while these answers were asked for.
    """
    good = [answer for answer in answers if answer.failure is None]
    tokens = sum(answer.tokens for answer in good)
    failures = Counter(answer.failure.kind.value for answer in answers if answer.failure is not None)
    return {
        "answered": len(good),
        "failures": dict(sorted(failures.items())),
        "seconds": seconds,
        "output_tokens": tokens,
        "tokens_per_second": tokens / seconds if seconds > 0 else 0.0,
        "time_to_first_token_seconds": spread(answer.first_seconds for answer in good),
        "time_per_output_token_seconds": spread(answer.seconds_per_token for answer in good),
        "tokens_counted_by": _counted_by(good),
    }


def _counted_by(good: Sequence[Answer]) -> str | None:
    """ "usage" if the server counted the tokens of every answer, "chunks" if of none, "both" in between."""
    sources = {"usage" if answer.counted_by_server else "chunks" for answer in good}
    return "both" if len(sources) == 2 else next(iter(sources), None)


def draft_figures(source: str, counts: DraftCounts) -> dict[str, Any]:
    """Rates of what was drafted; None where they cannot be known.

    Args:
        source: the server whose counters these are.
    """
    passes = counts.passes
    return {
        "source": source,
        "drafted": counts.drafted,
        "accepted": counts.accepted,
        "acceptance_rate": counts.accepted / counts.drafted if counts.drafted > 0 else None,
        "drafted_per_pass": counts.drafted / passes if passes else None,
        "tokens_per_pass": 1 + counts.accepted / passes if passes else None,
    }


def ratio(second: float | None, first: float | None) -> float | None:
    """Second over first; None where that says nothing."""
    return second / first if second is not None and first else None


def ratios(first: dict[str, Any], second: dict[str, Any]) -> dict[str, float | None]:
    """The second arm's `level_figures` over the first's: more is better of the throughput, less of the latencies."""
    times = ("time_to_first_token_seconds", "time_per_output_token_seconds")
    return {
        "tokens_per_second": ratio(second["tokens_per_second"], first["tokens_per_second"]),
        **{name: ratio(second[name]["median"], first[name]["median"]) for name in times},
    }


def compare_texts(first: Sequence[Answer], second: Sequence[Answer]) -> dict[str, Any]:
    """How many answers to the same requests have the same text, and where the first two part ways.

    Returns:
        `compared`, `equal`, and `first_difference`: None, or the `number` of the request, the `position` in characters
        and what `first` and `second` say from shortly before it.
    """
    by_number = {answer.number: answer for answer in second if answer.failure is None}
    firsts = sorted((answer for answer in first if answer.failure is None), key=lambda answer: answer.number)
    pairs = [(answer, by_number[answer.number]) for answer in firsts if answer.number in by_number]
    differing = [(a, b) for a, b in pairs if a.text != b.text]
    difference = None
    if differing:
        a, b = differing[0]
        place = first_difference(a.text, b.text)
        shown = slice(max(place - _SHOWN // 2, 0), place + _SHOWN // 2)
        difference = {"number": a.number, "position": place, "first": a.text[shown], "second": b.text[shown]}
    return {"compared": len(pairs), "equal": len(pairs) - len(differing), "first_difference": difference}


def first_difference(a: str, b: str) -> int:
    """The number of characters that both texts begin with."""
    return next((place for place, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def duration_range(seconds: float, levels: Sequence[tuple[int, int]]) -> tuple[float, float]:
    """The least and the most seconds that levels of (clients, requests) may take.

    The least is where clients do not slow each other down, the most where the server takes one request after another.

    Args:
        seconds: of one request alone.
    """
    least = sum(seconds * -(-requests // clients) for clients, requests in levels)
    return least, sum(seconds * requests for _, requests in levels)
