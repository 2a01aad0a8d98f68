"""How much to draft: pure functions of measured cost and calibrated chances.

A pass over n draft tokens costs c(1 + n) and brings 1 + (sum of the chances that each is accepted) tokens on average.
The draft that maximises tokens per second is taken; if that is the empty draft, drafting stops by itself.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field

from outrider.speculation.tree import Draft

_PRIOR_WEIGHT = 4.0
_MEMORY = 200.0
"""Observations that a chance remembers: an old text must not outweigh the present one for long."""


@dataclass
class VerifyCost:
    """Seconds of a target pass over 1, 2, ... rows: measured points, straight lines between them.

    Each pass seen later moves its nearest points (exponential average), which follows context length and load.
    """

    rows: list[int]
    seconds: list[float]

    def __call__(self, rows: int) -> float:
        """Expected seconds of a pass over `rows` rows."""
        right = min(max(bisect_left(self.rows, rows), 1), len(self.rows) - 1)
        left = right - 1
        slope = (self.seconds[right] - self.seconds[left]) / (self.rows[right] - self.rows[left])
        return max(self.seconds[left] + slope * (rows - self.rows[left]), self.seconds[0])

    def observe(self, rows: int, seconds: float, weight: float = 0.05) -> None:
        """Moves the curve towards a pass just measured. One slow pass (another process ran) counts as twice at most."""
        expected = self(rows)
        factor = 1 + weight * (min(seconds, 2 * expected) / expected - 1)
        if rows <= self.rows[-1]:
            at = bisect_left(self.rows, rows)
            for point in {at, at if self.rows[at] == rows else at - 1}:
                self.seconds[point] *= factor
            for point in range(1, len(self.rows)):  # more rows never cost less
                self.seconds[point] = max(self.seconds[point], self.seconds[point - 1])


@dataclass
class Calibration:
    """Chances that a draft token is accepted once its parent was, learnt per (source, situation)."""

    prior: dict[str, float] = field(default_factory=dict)
    _counts: dict[tuple[str, int], tuple[float, float]] = field(default_factory=dict)

    def chance(self, source: str, situation: int) -> float:
        """The present estimate."""
        tried, right = self._counts.get((source, situation), (0.0, 0.0))
        return (right + _PRIOR_WEIGHT * self.prior.get(source, 0.5)) / (tried + _PRIOR_WEIGHT)

    def observe(self, source: str, situation: int, tried: int, right: int) -> None:
        """Counts `right` of `tried` tokens whose parent was accepted."""
        old_tried, old_right = self._counts.get((source, situation), (0.0, 0.0))
        fade = min(1.0, _MEMORY / (old_tried + tried)) if tried else 1.0
        self._counts[source, situation] = ((old_tried + tried) * fade, (old_right + right) * fade)


def best_nodes(draft: Draft, cost: VerifyCost, spent: float = 0.0) -> list[int]:
    """The nodes worth verifying, as indices; empty if plain decoding is faster.

    Nodes are taken in falling order of their chance. A child is never likelier than its parent, and stands behind it,
    so every prefix of that order is a tree. `spent`: seconds of drafting already paid, the same for any choice but
    the comparison with plain decoding, where they are sunk too.
    """
    chances = draft.path_probabilities()
    order = sorted(range(len(chances)), key=lambda i: (-chances[i], i))
    best, best_rate, tokens = 0, 1.0 / (cost(1) + spent), 1.0
    for count, index in enumerate(order, start=1):
        tokens += chances[index]
        rate = tokens / (cost(1 + count) + spent)
        if rate > best_rate:
            best, best_rate = count, rate
    return order[:best]


def draft_length(chance: float, cost: VerifyCost, seconds_per_token: float, longest: int) -> int:
    """How long a chain is worth drafting when each token costs `seconds_per_token` and is right with `chance`."""
    best, best_rate, tokens, reached = 0, 1.0 / cost(1), 1.0, 1.0
    for length in range(1, longest + 1):
        reached *= chance
        tokens += reached
        rate = tokens / (cost(1 + length) + length * seconds_per_token)
        if rate > best_rate:
            best, best_rate = length, rate
    return best
