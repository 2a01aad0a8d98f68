"""What passes cost at the machine's usual pace, and what drafts bring there.

The ratio of two answers' times is noisy: by a tenth where single passes are disturbed, by a third where the machine
changes its pace for some seconds, as a virtual one does that its host moves about. How many passes an answer takes, and
over how many rows, is not. So every pass is counted at what passes of its kind cost in the whole run, which hundreds of
them tell better than it does itself: post-stratification (Cochran, Sampling Techniques, 1977, chapter 5A), with medians
in the place of means. Making drafts, choosing tokens and all else is counted as it was timed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

from outrider.bench.comparison import Comparison

if TYPE_CHECKING:
    from outrider.engine.outputs import RequestStats

_USUAL = 1.15
"""How many times as long, or as short, as in the whole run plain passes take at the usual pace. The two paces of some
virtual machines were 1.4 and 1.5 times apart, and at each of them most answers lay within 1.05."""


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
        everywhere = _medians(comparisons)
        usual = [of for of in comparisons if _at_usual_pace(of, everywhere)]
        self._usual, self._told = set(usual), {of.prompt for of in usual}
        self._seconds = everywhere | _medians(usual)

    def counts(self, of: Comparison) -> bool:
        """Whether it was made at the machine's usual pace; of a prompt that never was, all comparisons count."""
        return of in self._usual or of.prompt not in self._told

    def speedup(self, of: Comparison) -> float:
        """How many times as fast with drafts as without; 1 for an answer of one token, which leaves nothing to decode.

        Args:
            of: one of the comparisons that the costs are known from.
        """
        plain = self._token_seconds(of.plain.stats, drafted=False)
        drafted = self._token_seconds(of.drafted.stats, drafted=True)
        return plain / drafted if plain and drafted else 1.0

    def _token_seconds(self, stats: RequestStats, drafted: bool) -> float:
        verify = sum(self._seconds[kind] for kind, _ in _passes(stats, drafted))
        beside = stats.decode_seconds - stats.verify_seconds
        return (verify + beside) / stats.decoded_tokens if stats.decoded_tokens else 0.0


def _at_usual_pace(of: Comparison, costs: dict[_Kind, float]) -> bool:
    ratios = [seconds / costs[kind] for kind, seconds in _passes(of.plain.stats, drafted=False)]
    return not ratios or 1 / _USUAL <= median(ratios) <= _USUAL


def _medians(comparisons: Sequence[Comparison]) -> dict[_Kind, float]:
    seconds: dict[_Kind, list[float]] = defaultdict(list)
    for of in comparisons:
        for drafted, stats in ((False, of.plain.stats), (True, of.drafted.stats)):
            for kind, took in _passes(stats, drafted):
                seconds[kind].append(took)
    return {kind: median(of) for kind, of in seconds.items()}


def _passes(stats: RequestStats, drafted: bool) -> Iterator[tuple[_Kind, float]]:
    context = (stats.prompt_tokens + stats.decoded_tokens // 2).bit_length()
    return ((_Kind(drafted, context, of.rows), of.seconds) for of in stats.passes)
