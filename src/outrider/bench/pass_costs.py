"""What passes cost at the machine's best pace, and how fast decoding is there.

How long an answer takes is noisy: by a tenth where single passes are disturbed, by a third where the machine changes
its pace for some seconds, as a virtual one does that its host moves about, and then what drafts bring changes too. How
many passes an answer takes, and over how many rows, is not. So every pass is counted at what passes of its kind took
while the machine was at its best, which hundreds of them tell better than it does itself: post-stratification (Cochran,
Sampling Techniques, 1977, chapter 5A), with medians in the place of means. Making drafts, choosing tokens and all else
is counted as it was timed.

It is the best pace because runs have it in common more often than any other, and because it flatters least: plain
decoding, which waits for memory most, has most from it, and drafts are not praised for hiding a disturbance.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from statistics import median, quantiles
from typing import TYPE_CHECKING, NamedTuple

from outrider.bench.comparison import Comparison

if TYPE_CHECKING:
    from outrider.engine.outputs import RequestStats

_BEST = 1.15
"""How many times as long as in the best twentieth of a run a gauge may take at the best pace. The two paces of some
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
        twentieths = quantiles(gauges, n=20, method="inclusive")
        self._longest_gauge = _BEST * twentieths[0]
        self.best_share = sum(map(self.at_best_pace, gauges)) / len(gauges)
        """How much of the run was at the best pace, by its gauges."""
        self.pace_spread = twentieths[17] / twentieths[1]
        """How many times as fast the machine was at some times as at others: the ninth over the first decile."""
        timed: dict[bool, dict[_Kind, list[float]]] = {True: defaultdict(list), False: defaultdict(list)}
        for of in comparisons:
            for arm, drafted, stats in (("plain", False, of.plain.stats), ("drafted", True, of.drafted.stats)):
                for kind, seconds in _passes(stats, drafted):
                    timed[self.at_best_pace(of.gauges[arm])][kind].append(seconds)
        best, other = timed[True], timed[False]
        elsewhere = {kind: median(seconds) for kind, seconds in other.items()}
        # What passes over as many rows gain at the best pace, at all contexts together: there may be few of a kind.
        gains: dict[tuple[bool, int], list[float]] = defaultdict(list)
        for kind in best.keys() & other.keys():
            gains[kind.drafted, kind.rows] += [seconds / elsewhere[kind] for seconds in best[kind]]
        gain = {of: median(found) for of, found in gains.items()}
        self._seconds = {
            kind: median(best[kind])
            if len(best.get(kind, ())) >= len(other.get(kind, ()))
            else elsewhere[kind] * gain.get((kind.drafted, kind.rows), 1.0)
            for kind in best.keys() | other.keys()
        }

    def at_best_pace(self, gauge: float) -> bool:
        """Whether the machine was at its best pace when a gauge (`Comparison.gauges`) took so many seconds."""
        return gauge <= self._longest_gauge

    def tokens_per_second(self, stats: RequestStats, *, drafted: bool) -> float:
        """Decode speed at the best pace of an answer of these comparisons; 0 if it has no token after the first."""
        verify = sum(self._seconds[kind] for kind, _ in _passes(stats, drafted))
        seconds = verify + stats.decode_seconds - stats.verify_seconds
        return stats.decoded_tokens / seconds if seconds else 0.0


def _passes(stats: RequestStats, drafted: bool) -> Iterator[tuple[_Kind, float]]:
    context = (stats.prompt_tokens + stats.decoded_tokens // 2).bit_length()
    return ((_Kind(drafted, context, of.rows), of.seconds) for of in stats.passes)
