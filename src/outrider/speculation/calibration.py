"""Chances that draft tokens are accepted, learnt from verdicts."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import exp

from outrider.drafters.tree import Features

_PRIOR_WEIGHT = 4.0
_MEMORY = 100.0
"""Observations after which older ones fade: an old text must not outweigh the present one for long."""
_BIAS_RATE = 0.3


@dataclass
class Calibration:
    """Chances that a draft token is accepted once its parent was, learnt per source and features.

    Features go from coarse to fine. The estimate of the coarser tuple is the prior of the finer one, and the drafter's
    own guess that of the coarsest.
    """

    _counts: dict[tuple[str, Features], tuple[float, float]] = field(default_factory=dict)

    def chance(self, source: str, features: Features, guess: float) -> float:
        """The present estimate."""
        for detail in range(1, len(features) + 1):
            tried, right = self._counts.get((source, features[:detail]), (0.0, 0.0))
            guess = (right + _PRIOR_WEIGHT * guess) / (tried + _PRIOR_WEIGHT)
        return guess

    def observe(self, source: str, features: Features, accepted: float) -> None:
        """Counts a token whose parent was accepted."""
        for detail in range(1, len(features) + 1):
            key = source, features[:detail]
            tried, hits = self._counts.get(key, (0.0, 0.0))
            fade = min(1.0, _MEMORY / (tried + 1))
            self._counts[key] = ((tried + 1) * fade, (hits + accepted) * fade)


@dataclass
class Acceptance:
    """The chances of one sequence: those of all texts, with a per-request bias (see `drafters.protocol.Chances`).

    The bias shifts the log-odds of a source and moves after each verdict along the gradient of its likelihood (online
    logistic regression with an intercept alone).
    """

    calibration: Calibration
    _bias: dict[str, float] = field(default_factory=dict)

    def chance(self, source: str, features: Features, guess: float) -> float:
        """The chance that a token is accepted once its parent was; `guess` is the drafter's own estimate."""
        chance, bias = self.calibration.chance(source, features, guess), self._bias.get(source, 0.0)
        if bias == 0.0 or not 0.0 < chance < 1.0:
            return chance
        return 1 / (1 + (1 - chance) / chance * exp(-bias))

    def observe(self, source: str, features: Features, expected: float, accepted: float) -> None:
        """Counts a token that had the chance `expected`, and whose parent was accepted.

        Args:
            accepted: 1 or 0, or a better estimate of the chance than `expected`.
        """
        self.calibration.observe(source, features, accepted)
        self._bias[source] = self._bias.get(source, 0.0) + _BIAS_RATE * (accepted - expected)
