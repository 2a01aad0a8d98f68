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
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

from outrider.bench.comparison import Comparison
from outrider.bench.usual_pace import UsualPace

if TYPE_CHECKING:
    from outrider.engine.outputs import RequestStats


_ENOUGH = 10
"""Passes of a kind at the usual pace whose median is taken, however many there were at other paces: those are a
mixture, and so is what is reckoned from them. Of fewer it is taken unless there were more at others."""


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
        self.pace = UsualPace([gauges for of in comparisons for gauges in of.gauges.values()])
        timed: dict[bool, dict[_Kind, list[float]]] = {True: defaultdict(list), False: defaultdict(list)}
        for of in comparisons:
            for arm, drafted, stats in (("plain", False, of.plain.stats), ("drafted", True, of.drafted.stats)):
                for kind, seconds in _passes(stats, drafted):
                    timed[self.pace.holds(of.gauges[arm])][kind].append(seconds)
        usual, other = timed[True], timed[False]
        elsewhere = {kind: median(seconds) for kind, seconds in other.items()}
        # How passes over as many rows differ at the usual pace, of all contexts together: there may be few of a kind.
        ratios: dict[tuple[bool, int], list[float]] = defaultdict(list)
        for kind in usual.keys() & other.keys():
            ratios[kind.drafted, kind.rows] += [seconds / elsewhere[kind] for seconds in usual[kind]]
        ratio = {of: median(found) for of, found in ratios.items()}
        self._seconds = {
            kind: median(usual[kind])
            if len(usual.get(kind, ())) >= min(_ENOUGH, len(other.get(kind, ())))
            else elsewhere[kind] * ratio.get((kind.drafted, kind.rows), 1.0)
            for kind in usual.keys() | other.keys()
        }

    def tokens_per_second(self, stats: RequestStats, *, drafted: bool) -> float:
        """Decode speed at the usual pace of an answer of these comparisons; 0 if it has no token after the first."""
        verify = sum(self._seconds[kind] for kind, _ in _passes(stats, drafted))
        seconds = verify + stats.decode_seconds - stats.verify_seconds
        return stats.decoded_tokens / seconds if seconds else 0.0


def _passes(stats: RequestStats, drafted: bool) -> Iterator[tuple[_Kind, float]]:
    context = (stats.prompt_tokens + stats.decoded_tokens // 2).bit_length()
    return ((_Kind(drafted, context, of.rows), of.seconds) for of in stats.passes)
