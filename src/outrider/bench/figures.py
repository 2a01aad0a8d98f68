"""The figures of `outrider bench decode`, from its pairs: by category, and in total."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from statistics import median
from typing import TYPE_CHECKING, Any

from outrider.bench.interleave import Estimate, estimate
from outrider.bench.pairs import Pair
from outrider.bench.prompt import Prompt

if TYPE_CHECKING:
    from outrider.engine.outputs import RequestStats


def summarize(pairs: Sequence[Pair]) -> dict[str, Any]:
    """The figures of each category and of all pairs."""
    by_category: dict[str, list[Pair]] = {}
    for pair in pairs:
        by_category.setdefault(pair.prompt.category, []).append(pair)
    sources = sum((Counter(pair.drafted.stats.drafted_by_source) for pair in pairs), Counter[str]())
    return {
        "draft_sources": sorted(sources),
        "categories": {category: figures_of(of_category) for category, of_category in by_category.items()},
        "total": figures_of(pairs),
    }


def figures_of(pairs: Sequence[Pair]) -> dict[str, Any]:
    """The figures of some pairs.

    Speeds are geometric means over prompts and the pairs of each, so that the speed-up is their quotient. Answers of
    one token count towards `identical` alone: nothing was decoded.
    """
    drafted = [pair.drafted.stats for pair in pairs]
    plain_speed, mtp_speed, peer_speed, speedup, over_peer = (
        _over_prompts(pairs, of)
        for of in (
            lambda pair: pair.plain_tokens_per_second,
            lambda pair: pair.mtp_tokens_per_second,
            lambda pair: pair.peer_tokens_per_second,
            lambda pair: pair.mtp_tokens_per_second / pair.plain_tokens_per_second,
            lambda pair: pair.peer_tokens_per_second and pair.mtp_tokens_per_second / pair.peer_tokens_per_second,
        )
    )
    passes, proposed = sum(s.target_passes for s in drafted), sum(s.drafted for s in drafted)
    figures: dict[str, Any] = {
        "prompts": len({pair.prompt for pair in pairs}),
        "pairs": len(pairs),
        "plain_tokens_per_second": plain_speed.value if plain_speed else 0.0,
        "mtp_tokens_per_second": mtp_speed.value if mtp_speed else 0.0,
        "speedup": speedup.value if speedup else 1.0,
        "interval": list(speedup.interval) if speedup else [1.0, 1.0],
        "tokens_per_pass": sum(s.decoded_tokens for s in drafted) / passes if passes else 1.0,
        "acceptance_rate": sum(s.accepted for s in drafted) / proposed if proposed else 0.0,
        "by_source": _by_source(drafted),
        "time_split": _time_split(drafted),
        "first_token_seconds": {
            "plain": median(pair.plain.stats.prefill_seconds for pair in pairs),
            "mtp": median(s.prefill_seconds for s in drafted),
        },
        "identical": all(pair.identical for pair in pairs) and _same_in_all_rounds(pairs),
    }
    if peer_speed and over_peer:
        figures["peer_tokens_per_second"] = peer_speed.value
        figures["over_peer"], figures["over_peer_interval"] = over_peer.value, list(over_peer.interval)
    return figures


def _over_prompts(pairs: Sequence[Pair], value: Callable[[Pair], float | None]) -> Estimate | None:
    """The estimate of a value of pairs; None if no pair has it."""
    by_prompt: dict[Prompt, list[float]] = {}
    for pair in pairs:
        if pair.decoded and (found := value(pair)):
            by_prompt.setdefault(pair.prompt, []).append(found)
    return estimate(list(by_prompt.values())) if by_prompt else None


def _same_in_all_rounds(pairs: Sequence[Pair]) -> bool:
    answers = {(pair.prompt, pair.plain.token_ids) for pair in pairs}
    return len(answers) == len({pair.prompt for pair in pairs})


def _by_source(stats: Sequence[RequestStats]) -> dict[str, dict[str, int]]:
    """Source -> tokens that it drafted, and those of them that were accepted."""
    drafted = sum((Counter(of.drafted_by_source) for of in stats), Counter[str]())
    accepted = sum((Counter(of.accepted_by_source) for of in stats), Counter[str]())
    return {name: {"drafted": drafted[name], "accepted": accepted[name]} for name in sorted(drafted)}


def _time_split(stats: Sequence[RequestStats]) -> dict[str, float]:
    """Shares of decode time with drafting: drafting, target passes, the rest."""
    whole = sum(s.decode_seconds for s in stats)
    if not whole:
        return {"draft": 0.0, "verify": 0.0, "rest": 0.0}
    draft, verify = sum(s.draft_seconds for s in stats) / whole, sum(s.verify_seconds for s in stats) / whole
    return {"draft": draft, "verify": verify, "rest": max(1 - draft - verify, 0.0)}
