"""The speed-up of drafting, from the costs of passes and drafter steps and the acceptance rate."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from outrider.roofline.cost import pass_seconds
from outrider.roofline.hardware import Hardware
from outrider.roofline.work import Work

MOST_DRAFTED = 15
"""As many as outrider verifies in a pass."""
WORTHWHILE = 1.05
"""The least speed-up that counts as one."""


class Best(NamedTuple):
    """The draft length that decodes fastest, and how much faster than none. 0 and 1 where no length does."""

    drafted: int
    speedup: float


def expected_tokens(acceptance: float, drafted: int) -> float:
    """Tokens that a round brings on average: 1 + a + a^2 + ... + a^K.

    For a chain of K drafts, each accepted with probability a if those before it were (Leviathan, Kalman and Matias
    2023, "Fast inference from transformers via speculative decoding", equation 1).
    """
    return sum(acceptance**depth for depth in range(drafted + 1))


@dataclass(frozen=True)
class Plan:
    """A target and its drafter on some hardware.

    Args:
        drafter: None for drafts that cost nothing, as those from prompt lookup.
        context: positions that every request holds.
    """

    target: Work
    drafter: Work | None
    hardware: Hardware
    context: int
    _rounds: dict[tuple[int, int], float] = field(default_factory=dict, init=False, repr=False, compare=False)

    def plain_seconds(self, requests: int = 1) -> float:
        """Of a pass without drafts."""
        return self.round_seconds(0, requests)

    def verify_seconds(self, rows: int, requests: int = 1) -> float:
        """Of a pass over `rows` rows of each request."""
        return pass_seconds(self.target, self.hardware, rows=rows, requests=requests, context=self.context)

    def step_seconds(self, requests: int = 1) -> float:
        """Of a step of the drafter for all requests."""
        if self.drafter is None:
            return 0.0
        return pass_seconds(self.drafter, self.hardware, rows=1, requests=requests, context=self.context)

    def round_seconds(self, drafted: int, requests: int = 1) -> float:
        """Of drafting and verifying `drafted` tokens for each request."""
        if (drafted, requests) not in self._rounds:
            verifying = self.verify_seconds(1 + drafted, requests)
            self._rounds[drafted, requests] = drafted * self.step_seconds(requests) + verifying
        return self._rounds[drafted, requests]

    def speedup(self, acceptance: float, drafted: int, requests: int = 1) -> float:
        """Tokens per second with drafts over those without."""
        tokens = expected_tokens(acceptance, drafted)
        return tokens * self.plain_seconds(requests) / self.round_seconds(drafted, requests)

    def best(self, acceptance: float, requests: int = 1) -> Best:
        """The best draft length of at most `MOST_DRAFTED`, and of what the hardware's passes take."""
        of_all = self.hardware.most_drafted
        most = MOST_DRAFTED if of_all is None else min(MOST_DRAFTED, of_all // requests)
        found = ((self.speedup(acceptance, drafted, requests), -drafted) for drafted in range(most + 1))
        speedup, drafted = max(found)
        return Best(-drafted, speedup)

    def least_acceptance(self, requests: int = 1) -> float | None:
        """From which acceptance on drafting is worthwhile, in hundredths; None if it never is."""
        return next((a / 100 for a in range(101) if self.best(a / 100, requests).speedup >= WORTHWHILE), None)
