"""Cost of a target pass, by its rows and its context."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, replace

MOST_ROWS = 16
"""Rows that one sweep over the weights serves; drafts of planned length never exceed them."""
CURVE_ROWS = (1, 2, 4, 8, MOST_ROWS)
"""Row counts at which the cost of a pass is measured."""
_RATE, _MOST_SURPRISE, _ALIKE = 0.15, 0.2, 0.25
_FIRST_CONTEXT = 512
"""Positions up to which attention hardly costs anything; above, each doubling has a curve of its own."""


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

        Deviations are clipped to 20 %: an outlier says nothing about the next pass. Slow and fast phases of a machine
        affect all row counts, so the other points move a quarter as far as the nearest ones. No farther: where a load
        had no time to measure, the marginal row cost is learnt only from how points differ.
        """
        surprise = seconds / self(rows) - 1
        move = _RATE * min(max(surprise, -_MOST_SURPRISE), _MOST_SURPRISE)
        at = bisect_left(self.rows, min(rows, self.rows[-1]))
        near = {at, at if self.rows[at] <= rows else at - 1}
        self.seconds = [s * (1 + (move if i in near else _ALIKE * move)) for i, s in enumerate(self.seconds)]
        for point in range(1, len(self.rows)):  # more rows never cost less
            self.seconds[point] = max(self.seconds[point], self.seconds[point - 1])


class VerifyCosts:
    """A cost curve for every range of context lengths, since attention grows with the context.

    Args:
        first: the curve measured at load, at short context. The others begin as a copy of the nearest.
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
