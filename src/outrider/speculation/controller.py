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

from outrider.speculation.tree import Draft, Situation

_PRIOR_WEIGHT = 4.0
_MEMORY = 200.0
"""Observations that a chance remembers: an old text must not outweigh the present one for long."""
_COST_WEIGHT = 0.05
_FIRST_CONTEXT = 512
"""Positions up to which attention costs next to nothing; above, each doubling has a curve of its own."""
_PACE_MEMORY = 0.95


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

        One slow pass (another process ran) counts as twice the expected at most. Slow and fast phases of a machine
        concern all row counts, so the other points follow half as far as the nearest.
        """
        expected = self(rows)
        move = _COST_WEIGHT * (min(seconds, 2 * expected) / expected - 1)
        at = bisect_left(self.rows, min(rows, self.rows[-1]))
        near = {at, at if self.rows[at] <= rows else at - 1}
        self.seconds = [s * (1 + (move if i in near else move / 2)) for i, s in enumerate(self.seconds)]
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
    """Tokens per second of late: what a second is worth."""

    _tokens: float = 0.0
    _seconds: float = 0.0

    def observe(self, tokens: int, seconds: float) -> None:
        """Counts a pass with its drafting."""
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


def best_nodes(drafts: Sequence[Draft], cost: VerifyCost, certain: int, pace: float, most: int) -> list[list[int]]:
    """The nodes worth verifying in one pass, per draft, as indices.

    Args:
        certain: rows that the pass has anyway.
        pace: tokens per second that time is worth.
        most: nodes at most, all drafts together.

    Nodes are taken in falling order of their chance. A child is never likelier than its parent, and stands behind it,
    so every prefix of that order is a tree.
    """
    ranked = sorted(
        (-chance, number, node)
        for number, draft in enumerate(drafts)
        for node, chance in enumerate(draft.path_probabilities())
    )
    best, best_gain, gain = 0, 0.0, 0.0
    for count, (chance, _, _) in enumerate(ranked[:most], start=1):
        gain -= chance
        net = gain - pace * (cost(certain + count) - cost(certain))
        if net > best_gain:
            best, best_gain = count, net
    chosen: list[list[int]] = [[] for _ in drafts]
    for _, number, node in ranked[:best]:
        chosen[number].append(node)
    return chosen
