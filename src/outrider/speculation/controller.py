"""How much to draft: plain arithmetic on measured cost and calibrated chances.

A pass over n draft tokens costs c(1 + n), and each of them brings one more token with the chance that it is accepted.
Of all policies, the one with the most tokens per second takes a node exactly where its chance exceeds the tokens that
its time would bring otherwise (renewal reward; Dinkelbach's method with the pace of decoding as the ratio). Where
nothing does, the draft is empty: drafting stops by itself.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from math import exp

from outrider.drafters.tree import Draft, Situation

_PRIOR_WEIGHT = 4.0
_MEMORY = 100.0
"""Observations that a chance remembers: an old text must not outweigh the present one for long."""
_COST_WEIGHT, _MOST_SURPRISE, _ALIKE = 0.15, 0.2, 0.25
_FIRST_CONTEXT = 512
"""Positions up to which attention costs next to nothing; above, each doubling has a curve of its own."""
_PACE_MEMORY = 0.98
_LEVEL_RATE, _MOST_SHIFT = 0.3, 4.0


@dataclass
class VerifyCost:
    """Seconds of a target pass over 1, 2, ... rows: measured points, straight lines between them."""

    rows: list[int]
    seconds: list[float]

    def __call__(self, rows: int) -> float:
        """Expected seconds of a pass over `rows` rows."""
        right = min(max(bisect_left(self.rows, rows), 1), len(self.rows) - 1)
        left = right - 1
        slope = (self.seconds[right] - self.seconds[left]) / (self.rows[right] - self.rows[left])
        return max(self.seconds[left] + slope * (rows - self.rows[left]), self.seconds[0])

    def observe(self, rows: int, seconds: float) -> None:
        """Moves the curve towards a pass just measured.

        None counts as more than a fifth slower or faster than expected: one in which another process ran says nothing
        of the next. Slow and fast phases of a machine concern all row counts, so the other points follow a
        quarter as far as the nearest. No farther: where a load had no time to measure, what a further row costs is a
        guess, and learnt only from how points differ.
        """
        surprise = seconds / self(rows) - 1
        move = _COST_WEIGHT * min(max(surprise, -_MOST_SURPRISE), _MOST_SURPRISE)
        at = bisect_left(self.rows, min(rows, self.rows[-1]))
        near = {at, at if self.rows[at] <= rows else at - 1}
        self.seconds = [s * (1 + (move if i in near else _ALIKE * move)) for i, s in enumerate(self.seconds)]
        for point in range(1, len(self.rows)):  # more rows never cost less
            self.seconds[point] = max(self.seconds[point], self.seconds[point - 1])


class VerifyCosts:
    """A cost curve for every range of context lengths, as attention grows with the context.

    Args:
        first: the curve measured at load, at short context. The others begin as a copy of their neighbour.
    """

    def __init__(self, first: VerifyCost) -> None:
        self._curves = {0: first}

    def at(self, context: int) -> VerifyCost:
        """The curve of passes after `context` positions."""
        wanted = max(context // _FIRST_CONTEXT, 0).bit_length()
        if wanted not in self._curves:
            nearest = self._curves[min(self._curves, key=lambda known: abs(known - wanted))]
            self._curves[wanted] = replace(nearest, seconds=list(nearest.seconds))
        return self._curves[wanted]


@dataclass
class Pace:
    """Tokens per second of late: what a second is worth.

    Counted are the tokens and seconds that were expected of each pass. What came is the same on average, once chances
    and costs are learnt, and far noisier: of some dozen passes, by a fifth (Rao-Blackwell).
    """

    _tokens: float = 0.0
    _seconds: float = 0.0

    def observe(self, tokens: float, seconds: float) -> None:
        """Counts a pass with its drafting: what was expected of it."""
        self._tokens = _PACE_MEMORY * self._tokens + tokens
        self._seconds = _PACE_MEMORY * self._seconds + seconds

    def at_least(self, plain: float) -> float:
        """The pace, but never less than plain decoding's."""
        return max(self._tokens / self._seconds, plain) if self._seconds else plain


@dataclass
class Calibration:
    """Chances that a draft token is accepted once its parent was, learnt per source and situation.

    A situation is a tuple from the coarse to the fine. Its estimate leans on that of the coarser one until it has seen
    enough itself, and the coarsest on the drafter's own guess.
    """

    _counts: dict[tuple[str, Situation], tuple[float, float]] = field(default_factory=dict)

    def chance(self, source: str, situation: Situation, guess: float) -> float:
        """The present estimate."""
        for detail in range(1, len(situation) + 1):
            tried, right = self._counts.get((source, situation[:detail]), (0.0, 0.0))
            guess = (right + _PRIOR_WEIGHT * guess) / (tried + _PRIOR_WEIGHT)
        return guess

    def observe(self, source: str, situation: Situation, right: bool) -> None:
        """Counts a token whose parent was accepted."""
        for detail in range(1, len(situation) + 1):
            key = source, situation[:detail]
            tried, hits = self._counts.get(key, (0.0, 0.0))
            fade = min(1.0, _MEMORY / (tried + 1))
            self._counts[key] = ((tried + 1) * fade, (hits + right) * fade)


@dataclass
class Level:
    """How much more or less often drafts come true in one text than in texts at large, per source.

    A shift of the log-odds, moved after each verdict along the gradient of its likelihood (online logistic regression
    with nothing but an intercept).
    """

    _shift: dict[str, float] = field(default_factory=dict)

    def applied(self, source: str, chance: float) -> float:
        """The chance in this text of what has `chance` at large."""
        shift = self._shift.get(source, 0.0)
        if shift == 0.0 or not 0.0 < chance < 1.0:
            return chance
        return 1 / (1 + (1 - chance) / chance * exp(-shift))

    def observe(self, source: str, expected: float, right: bool) -> None:
        """Counts a token that was given the chance `expected`."""
        shift = self._shift.get(source, 0.0) + _LEVEL_RATE * (right - expected)
        self._shift[source] = min(max(shift, -_MOST_SHIFT), _MOST_SHIFT)


def best_nodes(drafts: Sequence[Draft], cost: VerifyCost, certain: int, pace: float, most: int) -> list[list[int]]:
    """The nodes worth verifying in one pass, per draft, as indices.

    Args:
        certain: rows that the pass has anyway.
        pace: tokens per second that time is worth.
        most: nodes at most, all drafts together.
    """
    ranked = _ranked(drafts, most)
    gains = [
        gain - pace * (cost(certain + count) - cost(certain))
        for count, gain in enumerate(accumulate((chance for chance, _, _ in ranked), initial=0.0))
    ]
    chosen: list[list[int]] = [[] for _ in drafts]
    for _, number, node in ranked[: gains.index(max(gains))]:
        chosen[number].append(node)
    return chosen


def best_pace(drafts: Sequence[Draft], cost: VerifyCost, certain: int, most: int) -> float:
    """The most tokens per second that a pass can reach with these drafts; see `best_nodes`."""
    chances = (chance for chance, _, _ in _ranked(drafts, most))
    return max(tokens / cost(certain + n) for n, tokens in enumerate(accumulate(chances, initial=float(certain))))


def _ranked(drafts: Sequence[Draft], most: int) -> list[tuple[float, int, int]]:
    """(chance, draft, node) of the likeliest nodes, in falling order.

    A child is never likelier than its parent, and stands behind it, so every prefix is a tree.
    """
    nodes = (
        (chance, number, node)
        for number, draft in enumerate(drafts)
        for node, chance in enumerate(draft.path_probabilities())
    )
    return sorted(nodes, key=lambda n: (-n[0], n[1], n[2]))[:most]
