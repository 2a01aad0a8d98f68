"""What passes cost at the machine's usual pace, and how fast decoding is there.

How long an answer takes is noisy: by a tenth where single passes are disturbed, by a third where the machine changes
its pace for some seconds, as a virtual one does that its host moves about, and then what drafts bring changes too. How
many passes an answer takes, and over how many rows, is not. So every pass is counted at what passes of its kind took
while the machine was at its usual pace, which hundreds of them tell better than it does itself: post-stratification
(Cochran, Sampling Techniques, 1977, chapter 5A), with medians in the place of means. Making drafts, choosing tokens and
all else is counted as it was timed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from statistics import median, quantiles
from typing import TYPE_CHECKING, NamedTuple

from outrider.bench.comparison import Comparison

if TYPE_CHECKING:
    from outrider.engine.outputs import RequestStats

_USUAL = 1.15
"""How many times as long, or as short, as the median of a run a gauge is at the usual pace. The two paces of some
virtual machines were 1.4 and 1.5 times apart, and at each of them most gauges lay within 1.1."""


class _Kind(NamedTuple):
    """Passes that cost the same. Those of plain decoding are not those over one row beside drafts, which find other
    things in the processor's caches."""

    drafted: bool
    context: int
    """A doubling of its length: the bits of that of the answer's middle."""
    rows: int


class PassCosts:
    """The costs in one run, known from its comparisons."""

    def __init__(self, comparisons: Sequence[Comparison]) -> None:
        gauges = [seconds for of in comparisons for seconds in of.gauges.values()]
        self._usual_gauge = median(gauges)
        self.usual_share = sum(map(self.at_usual_pace, gauges)) / len(gauges)
        """How much of the run was at the usual pace, by its gauges."""
        deciles = quantiles(gauges, n=10, method="inclusive")
        self.pace_spread = deciles[-1] / deciles[0]
        """How many times as fast the machine was at some times as at others: the ninth over the first decile."""
        timed: dict[bool, dict[_Kind, list[float]]] = {True: defaultdict(list), False: defaultdict(list)}
        for of in comparisons:
            for arm, drafted, stats in (("plain", False, of.plain.stats), ("drafted", True, of.drafted.stats)):
                for kind, seconds in _passes(stats, drafted):
                    timed[self.at_usual_pace(of.gauges[arm])][kind].append(seconds)
        usual, other = timed[True], timed[False]
        elsewhere = {kind: median(seconds) for kind, seconds in other.items()}
        # How passes over as many rows differ at the usual pace, of all contexts together: there may be few of a kind.
        ratios: dict[tuple[bool, int], list[float]] = defaultdict(list)
        for kind in usual.keys() & other.keys():
            ratios[kind.drafted, kind.rows] += [seconds / elsewhere[kind] for seconds in usual[kind]]
        ratio = {of: median(found) for of, found in ratios.items()}
        self._seconds = {
            kind: median(usual[kind])
            if len(usual.get(kind, ())) >= len(other.get(kind, ()))
            else elsewhere[kind] * ratio.get((kind.drafted, kind.rows), 1.0)
            for kind in usual.keys() | other.keys()
        }

    def at_usual_pace(self, gauge: float) -> bool:
        """Whether the machine was at its usual pace when a gauge (`Comparison.gauges`) took so many seconds."""
        return 1 / _USUAL <= gauge / self._usual_gauge <= _USUAL

    def tokens_per_second(self, stats: RequestStats, *, drafted: bool) -> float:
        """Decode speed at the usual pace of an answer of these comparisons; 0 if it has no token after the first."""
        verify = sum(self._seconds[kind] for kind, _ in _passes(stats, drafted))
        seconds = verify + stats.decode_seconds - stats.verify_seconds
        return stats.decoded_tokens / seconds if seconds else 0.0


def _passes(stats: RequestStats, drafted: bool) -> Iterator[tuple[_Kind, float]]:
    context = (stats.prompt_tokens + stats.decoded_tokens // 2).bit_length()
    return ((_Kind(drafted, context, of.rows), of.seconds) for of in stats.passes)
