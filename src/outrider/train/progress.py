"""Progress of a training run: the share that is done of the whole, by time."""

from __future__ import annotations

import time
from collections.abc import Callable

Report = Callable[[str, float, str], None]
"""Receives (stage, share of the run that is done from 0 to 1, figures)."""

FINISHING_SECONDS = 60.0
"""Expected of loading, ordering the head and writing the drafter: some half a minute on two cores for the demo."""


class RunProgress:
    """Reports each stage with the share of the run's time that has passed, which never falls.

    Args:
        clock: seconds.
    """

    def __init__(self, report: Report, clock: Callable[[], float] = time.monotonic) -> None:
        self._report, self._clock, self._started, self._share = report, clock, clock(), 0.0

    def __call__(self, stage: str, seconds_left: float, figures: str = "") -> None:
        """Report a stage, given the time that the run still takes."""
        spent = self._clock() - self._started
        share = spent / (spent + seconds_left) if seconds_left > 0 else 1.0
        self._share = max(self._share, share)
        self._report(stage, self._share, figures)
