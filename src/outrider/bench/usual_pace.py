"""The pace that a machine mostly has while something is measured.

A virtual machine that its host moves about, or a laptop that gets warm, changes its pace for seconds or minutes, and
passes over one row by another factor than passes over eight: side by side they are then figures of two machines. So a
gauge is read before and after all that is measured, and what was measured at the usual pace counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from statistics import median, median_high
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from outrider import LLM

_USUAL = 1.15
"""How many times as long, or as short, as the median of a run a gauge is at the usual pace. The two paces of some
virtual machines were 1.4 and 1.5 times apart, and at each of them most gauges lay within 1.1."""
_STEADY = 1.1
"""How much the pace may differ before it is told."""
_GAUGE_PASSES = 3


def read_gauge(llm: LLM, context: int = 0) -> float:
    """How fast the machine is just now: the seconds of a pass over one row, which waits for memory."""
    # After one that is not counted: it finds in the caches what others left there.
    return median(llm.measure.verify(1, context, _GAUGE_PASSES + 1)[1:])


Gauges = tuple[float, float]
"""Those before and after something that was measured, in seconds."""


class UsualPace:
    """That of one run.

    Args:
        gauges: of everything that was measured in it.
    """

    def __init__(self, gauges: Sequence[Gauges]) -> None:
        self._gauge = median_high(chain.from_iterable(gauges))  # one of them: between two paces lies none
        self.share = sum(map(self.holds, gauges)) / len(gauges)
        """How much of what was measured was measured at the usual pace."""
        fastest, slowest = np.quantile(gauges, (0.1, 0.9))
        self.spread = float(slowest / fastest)
        """How many times as fast the machine was at some times as at others: the ninth over the first decile."""

    def as_dict(self) -> dict[str, float]:
        """The fields of `--json`."""
        return {"pace_spread": self.spread, "usual_pace_share": self.share}

    def holds(self, gauges: Gauges) -> bool:
        """Whether the machine was at its usual pace both before and after something, and so most likely during it."""
        return all(1 / _USUAL <= gauge / self._gauge <= _USUAL for gauge in gauges)


def changes_of_pace(result: Mapping[str, Any]) -> str | None:
    """A sentence on them for a person, from the fields of `UsualPace.as_dict`; None on a machine that was steady."""
    if (spread := result["pace_spread"]) <= _STEADY:
        return None
    return (
        f"The machine changed its pace: a pass over one row was {spread:.2f} times as fast at some times as at others."
    )
