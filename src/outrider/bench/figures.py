"""The figures of a comparison, from what was decoded: by category and in total."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, log, sqrt
from statistics import fmean, median, quantiles
from typing import TYPE_CHECKING, Any

from outrider.bench.prompt import Prompt
from outrider.bench.prompt_file import MT_BENCH, MT_BENCH_CATEGORIES, has_mt_bench

if TYPE_CHECKING:
    from outrider import RequestOutput
    from outrider.engine.outputs import RequestStats


_ASTRAY = 1.5
"""How many times as much, or as little, as the median of its prompt's rounds a speed-up may be."""


@dataclass(frozen=True)
class Comparison:
    """One prompt, decoded without drafts, with them, and by the peer, close together in time."""

    prompt: Prompt
    plain: RequestOutput
    drafted: RequestOutput
    peer_tokens_per_second: float | None

    @property
    def speedup(self) -> float:
        """Drafted over plain decode speed."""
        plain, drafted = (of.stats.decode_tokens_per_second for of in (self.plain, self.drafted))
        return drafted / plain if plain and drafted else 1.0  # an answer of one token leaves nothing to decode

    @property
    def identical(self) -> bool:
        """Whether drafting changed nothing but the time."""
        return (self.plain.token_ids, self.plain.finish_reason) == (self.drafted.token_ids, self.drafted.finish_reason)

    def as_pair(self) -> dict[str, Any]:
        """What `--json` says of it."""
        return {
            "category": self.prompt.category,
            "plain_tokens_per_second": self.plain.stats.decode_tokens_per_second,
            "mtp_tokens_per_second": self.drafted.stats.decode_tokens_per_second,
            "speedup": self.speedup,
        }


def summarize(comparisons: Sequence[Comparison]) -> dict[str, Any]:
    """The figures of each category, of MT-Bench's if all of them are there, and of all together."""
    by_category: dict[str, list[Comparison]] = {}
    for comparison in comparisons:
        by_category.setdefault(comparison.prompt.category, []).append(comparison)
    sources: Counter[str] = Counter()
    for comparison in comparisons:
        sources.update(comparison.drafted.stats.drafted_by_source)
    mt_bench = [of for of in comparisons if of.prompt.category in MT_BENCH_CATEGORIES]
    return {
        "draft_sources": sorted(+sources),
        "categories": {category: _figures(of_category) for category, of_category in by_category.items()},
        "groups": {MT_BENCH: _figures(mt_bench)} if has_mt_bench(by_category) else {},
        "total": _figures(comparisons),
        "pace_spread": pace_spread(comparisons),
    }


def speedup_by_prompt(comparisons: Sequence[Comparison]) -> dict[Prompt, float]:
    """Each prompt's speed-up: the geometric mean of its rounds, each the ratio of two answers that followed each other.

    The ratio of neighbours forgets how fast the machine was just then. A median of the rounds would jump between the
    states of a machine that has two, so it is `centre`.
    """
    return {prompt: centre(ratios) for prompt, ratios in _rounds(comparisons).items()}


def speedup_error(comparisons: Sequence[Comparison]) -> float | None:
    """The standard error of the prompts' mean speed-up, as a share of it: how far the same prompts, measured again, go.

    From how much a prompt's rounds differ, taken to be the same for all prompts. None if there is but one round.
    """
    rounds = [_logs(of) for of in _rounds(comparisons).values()]
    freedom = sum(len(of) - 1 for of in rounds)
    if not freedom:
        return None
    squares = sum((value - fmean(of)) ** 2 for of in rounds for value in of)
    return sqrt(squares / freedom * sum(1 / len(of) for of in rounds)) / len(rounds)


def _rounds(comparisons: Sequence[Comparison]) -> dict[Prompt, list[float]]:
    rounds: dict[Prompt, list[float]] = {}
    for comparison in comparisons:
        rounds.setdefault(comparison.prompt, []).append(comparison.speedup)
    return rounds


def centre(ratios: Sequence[float]) -> float:
    """The geometric mean of a prompt's rounds, none of them further than `_ASTRAY` from their median."""
    return exp(fmean(_logs(ratios)))


def _logs(ratios: Sequence[float]) -> list[float]:
    middle = median(ratios)
    return [log(min(max(ratio, middle / _ASTRAY), middle * _ASTRAY)) for ratio in ratios]


def pace_spread(comparisons: Sequence[Comparison]) -> float:
    """How many times as fast plain decoding of the same prompts was at some times as at others: 1 on a steady machine.

    The ratio of the ninth to the first decile, each answer's speed taken against the median of its prompt's.
    """
    by_prompt: dict[Prompt, list[float]] = {}
    for comparison in comparisons:
        if comparison.plain.stats.decode_tokens_per_second:
            by_prompt.setdefault(comparison.prompt, []).append(comparison.plain.stats.decode_tokens_per_second)
    against = [speed / median(speeds) for speeds in by_prompt.values() for speed in speeds]
    if len(against) < 2:
        return 1.0
    deciles = quantiles(against, n=10, method="inclusive")
    return deciles[-1] / deciles[0]


def _figures(comparisons: Sequence[Comparison]) -> dict[str, Any]:
    """Speeds are medians, the counts are added up.

    The speed-up is the geometric mean over prompts of `speedup_by_prompt`. A median over prompts would hang on one or
    two of them, and where these lie close together jump between runs; and of ratios only the geometric mean is the same
    whichever arm stands above the line.
    """
    plain = [comparison.plain.stats for comparison in comparisons]
    drafted = [comparison.drafted.stats for comparison in comparisons]
    by_prompt = list(speedup_by_prompt(comparisons).values())
    passes, proposed = sum(s.target_passes for s in drafted), sum(s.drafted for s in drafted)
    figures: dict[str, Any] = {
        "prompts": len(by_prompt),
        "plain_tokens_per_second": median(s.decode_tokens_per_second for s in plain),
        "mtp_tokens_per_second": median(s.decode_tokens_per_second for s in drafted),
        "speedup": exp(fmean(log(ratio) for ratio in by_prompt)),
        "speedup_error": speedup_error(comparisons),
        "speedup_range": [min(by_prompt), max(by_prompt)],
        "tokens_per_pass": sum(s.decoded_tokens for s in drafted) / passes if passes else 1.0,
        "acceptance_rate": sum(s.accepted for s in drafted) / proposed if proposed else 0.0,
        "acceptance_by_depth": _by_depth(drafted),
        "by_source": _by_source(drafted),
        "time_split": _time_split(drafted),
        "first_token_seconds": {
            "plain": median(s.prefill_seconds for s in plain),
            "mtp": median(s.prefill_seconds for s in drafted),
        },
        "identical": all(comparison.identical for comparison in comparisons),
    }
    peer_speeds = [c.peer_tokens_per_second for c in comparisons if c.peer_tokens_per_second is not None]
    if peer_speeds:
        figures["peer_tokens_per_second"] = median(peer_speeds)
    return figures


def _by_depth(stats: Sequence[RequestStats]) -> list[float]:
    """Of the drafted tokens at each depth, how many were accepted."""
    drafted, accepted = Counter[int](), Counter[int]()
    for of in stats:
        drafted.update(dict(enumerate(of.drafted_by_depth)))
        accepted.update(dict(enumerate(of.accepted_by_depth)))
    return [accepted[depth] / drafted[depth] if drafted[depth] else 0.0 for depth in sorted(drafted)]


def _by_source(stats: Sequence[RequestStats]) -> dict[str, dict[str, int]]:
    """Source -> how many tokens it drafted, and how many of them were accepted."""
    drafted, accepted = Counter[str](), Counter[str]()
    for of in stats:
        drafted.update(of.drafted_by_source)
        accepted.update(of.accepted_by_source)
    return {name: {"drafted": drafted[name], "accepted": accepted[name]} for name in sorted(+drafted)}


def _time_split(stats: Sequence[RequestStats]) -> dict[str, float]:
    """Shares of the time of decoding with drafts: making them, the target's passes, and all else."""
    whole = sum(s.decode_seconds for s in stats)
    draft, verify = (sum(getattr(s, name) for s in stats) for name in ("draft_seconds", "verify_seconds"))
    if not whole:
        return {"draft": 0.0, "verify": 0.0, "rest": 0.0}
    return {"draft": draft / whole, "verify": verify / whole, "rest": max(1 - (draft + verify) / whole, 0.0)}
