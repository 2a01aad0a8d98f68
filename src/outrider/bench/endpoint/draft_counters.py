"""What servers tell of their drafts: counters at `/metrics`, and timings in their responses.

vLLM counts drafts, drafted tokens and accepted tokens. llama.cpp's server (with `--metrics`) and outrider do so under
the same names with prefixes of their own; outrider counts as drafts all its target passes after the prefill. SGLang
has gauges alone: the means of its latest passes. llama.cpp also tells in each response how many tokens were drafted
and accepted. Counters are the whole server's: what other
clients ask for at the same time is in them too.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from outrider.bench.endpoint.answer import Answer, DraftCounts
from outrider.bench.endpoint.figures import draft_figures

_COUNTERS = {"vLLM": "vllm:spec_decode", "llama.cpp": "llamacpp:spec_decode", "outrider": "outrider_spec_decode"}
_SGLANG_LENGTH = "sglang:spec_accept_length"
_SGLANG_RATE = "sglang:spec_accept_rate"


@dataclass(frozen=True)
class Counters:
    """One reading of `/metrics`.

    source: whose they are.
    counts: so far; None where there are only gauges.
    length, rate: SGLang's gauges: mean tokens per pass and acceptance rate.
    """

    source: str
    counts: DraftCounts | None = None
    length: float | None = None
    rate: float | None = None


def read_counters(text: str) -> Counters | None:
    """What a text in Prometheus' format says of drafts; None if nothing, or if it is no such text.

    The values of one name are added up over its labels (engines, models); of gauges the mean is taken.
    """
    values: dict[str, list[float]] = defaultdict(list)
    try:
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                values[sample.name].append(sample.value)
    except (ValueError, KeyError, IndexError):
        return None
    for source, prefix in _COUNTERS.items():
        names = [f"{prefix}_num_{what}_total" for what in ("draft_tokens", "accepted_tokens", "drafts")]
        if all(name in values for name in names):
            drafted, accepted, passes = (sum(values[name]) for name in names)
            return Counters(source, DraftCounts(drafted, accepted, passes))
    length, rate = (fmean(values[name]) if name in values else None for name in (_SGLANG_LENGTH, _SGLANG_RATE))
    # SGLang shows both as 0 until something is drafted.
    return Counters("SGLang", length=length, rate=rate) if length else None


def read_timings(timings: Any) -> DraftCounts | None:
    """llama.cpp's `timings` of one response; None if they do not tell of drafts.

    The first token comes of the prefill, and every pass after it adds one token more than it accepts.
    """
    if not isinstance(timings, dict):
        return None
    drafted, accepted, predicted = (timings.get(name) for name in ("draft_n", "draft_n_accepted", "predicted_n"))
    if not isinstance(drafted, int) or not isinstance(accepted, int):
        return None
    passes = predicted - 1 - accepted if isinstance(predicted, int) else None
    return DraftCounts(drafted, accepted, passes if passes is None or passes > 0 else None)


def counted_between(before: Counters | None, after: Counters | None) -> DraftCounts | None:
    """What was counted between two readings; None without counters, or if the server was started anew in between."""
    if before is None or after is None or before.counts is None or after.counts is None:
        return None
    counted = after.counts - before.counts
    return counted if min(counted.drafted, counted.accepted, counted.passes or 0) >= 0 else None


def drafting(
    turns: Iterable[tuple[Counters | None, Counters | None]], answers: Iterable[Answer]
) -> dict[str, Any] | None:
    """The figures of one arm at one level, from whichever source there is; None if there is none.

    Args:
        turns: the readings before and after each turn.
    """
    turns = list(turns)
    sources = [after.source for _, after in turns if after is not None]
    counted = [counts for before, after in turns if (counts := counted_between(before, after)) is not None]
    if sources and counted:
        return draft_figures(sources[-1], sum(counted[1:], counted[0]))
    gauges = [after for _, after in turns if after is not None and after.length is not None]
    if gauges:
        empty = dict.fromkeys(draft_figures("", DraftCounts(0, 0, None)))
        return empty | {
            "source": "SGLang",
            "acceptance_rate": gauges[-1].rate,
            "tokens_per_pass": gauges[-1].length,
        }
    told = [answer.draft for answer in answers if answer.draft is not None]
    return draft_figures("llama.cpp", sum(told[1:], told[0])) if told else None
