"""The figures of a comparison, from what was decoded: by category and in total."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import log, sqrt
from statistics import fmean, geometric_mean, median
from typing import TYPE_CHECKING, Any

from outrider.bench.comparison import Comparison
from outrider.bench.pass_costs import PassCosts
from outrider.bench.prompt import Prompt
from outrider.bench.prompt_file import MT_BENCH, MT_BENCH_CATEGORIES, has_mt_bench

if TYPE_CHECKING:
    from outrider.engine.outputs import RequestStats


def summarize(comparisons: Sequence[Comparison], costs: PassCosts) -> dict[str, Any]:
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
        "categories": {category: _figures(of_category, costs) for category, of_category in by_category.items()},
        "groups": {MT_BENCH: _figures(mt_bench, costs)} if has_mt_bench(by_category) else {},
        "total": _figures(comparisons, costs),
        **costs.pace.as_dict(),
    }


def _figures(comparisons: Sequence[Comparison], costs: PassCosts) -> dict[str, Any]:
    """Speeds are medians at the machine's usual pace, times to the first token are as timed; counts are added up.

    The speed-up is the geometric mean over prompts and of each over its rounds. A median over prompts would hang on one
    or two of them, and where these lie close together jump between runs; and of ratios only the geometric mean is the
    same whichever arm stands above the line.
    """
    plain = [comparison.plain.stats for comparison in comparisons]
    drafted = [comparison.drafted.stats for comparison in comparisons]
    plain_speeds = [costs.tokens_per_second(stats, drafted=False) for stats in plain]
    drafted_speeds = [costs.tokens_per_second(stats, drafted=True) for stats in drafted]
    rounds = _rounds(comparisons, plain_speeds, drafted_speeds)
    by_prompt = [geometric_mean(of) for of in rounds]
    timed = _rounds(comparisons, *([stats.decode_tokens_per_second for stats in arm] for arm in (plain, drafted)))
    passes, proposed = sum(s.target_passes for s in drafted), sum(s.drafted for s in drafted)
    figures: dict[str, Any] = {
        "prompts": len(by_prompt),
        "plain_tokens_per_second": median(plain_speeds),
        "mtp_tokens_per_second": median(drafted_speeds),
        "speedup": geometric_mean(by_prompt),
        "speedup_error": _standard_error(rounds),
        "speedup_as_timed": geometric_mean(geometric_mean(of) for of in timed),
        "speedup_range": [min(by_prompt), max(by_prompt)],
        "tokens_per_pass": sum(s.decoded_tokens for s in drafted) / passes if passes else 1.0,
        "acceptance_rate": sum(s.accepted for s in drafted) / proposed if proposed else 0.0,
        "acceptance_by_depth": _by_depth(drafted),
        "by_source": _by_source(drafted),
        "time_split": _time_split(drafted),
        "first_token_seconds": {
            "plain": _first_token(comparisons, plain),
            "mtp": _first_token(comparisons, drafted),
        },
        "identical": all(of.identical for of in comparisons) and _same_in_all_rounds(comparisons),
    }
    if peer_speeds := _peer_speeds(comparisons, costs):
        figures["peer_tokens_per_second"] = median(peer_speeds)
    return figures


def _peer_speeds(comparisons: Sequence[Comparison], costs: PassCosts) -> list[float]:
    """Those at the machine's usual pace, if there are any; all its passes are over one row, so they need no more."""
    speeds = [(of.peer_tokens_per_second, of) for of in comparisons if of.peer_tokens_per_second is not None]
    return [speed for speed, of in speeds if costs.pace.holds(of.gauges["peer"])] or [speed for speed, _ in speeds]


def _first_token(comparisons: Sequence[Comparison], stats: Sequence[RequestStats]) -> float:
    """The median of the prompts', each of which is the median of the rounds in which it was computed.

    All are in their first round, and those too short to be taken from the prefix cache in the others as well.
    """
    computed: dict[Prompt, list[float]] = {}
    for comparison, of in zip(comparisons, stats, strict=True):
        if not of.reused_tokens:
            computed.setdefault(comparison.prompt, []).append(of.prefill_seconds)
    return median(map(median, computed.values()))


def _same_in_all_rounds(comparisons: Sequence[Comparison]) -> bool:
    """Whether a prompt from the prefix cache had the answer that it had when it was computed."""
    answers = {(of.prompt, of.plain.token_ids) for of in comparisons}
    return len(answers) == len({of.prompt for of in comparisons})


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


def _rounds(comparisons: Sequence[Comparison], plain: Sequence[float], drafted: Sequence[float]) -> list[list[float]]:
    """The speed-ups of every prompt's rounds, from the speeds; 1 for an answer of one token: nothing was decoded."""
    rounds: dict[Prompt, list[float]] = {}
    for comparison, slow, fast in zip(comparisons, plain, drafted, strict=True):
        rounds.setdefault(comparison.prompt, []).append(fast / slow if slow and fast else 1.0)
    return list(rounds.values())


def _standard_error(rounds: Sequence[Sequence[float]]) -> float | None:
    """Of the prompts' mean speed-up, as a share of it: how far the same prompts, measured again, go.

    From how much a prompt's rounds differ, taken to be the same for all prompts. None if no prompt has two rounds.
    """
    freedom = sum(len(of) - 1 for of in rounds)
    if not freedom:
        return None
    logs = [[log(ratio) for ratio in of] for of in rounds]
    squares = sum((value - fmean(of)) ** 2 for of in logs for value in of)
    return sqrt(squares / freedom * sum(1 / len(of) for of in rounds)) / len(rounds)
