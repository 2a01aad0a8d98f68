"""How much to draft: arithmetic on measured cost and calibrated chances.

A pass over n draft tokens costs c(1 + n), and each emits one more token with the chance that it is accepted. The policy
with the most tokens per second verifies a node exactly if its chance exceeds the tokens that its time is worth at the
present pace (renewal reward; Dinkelbach 1967, with the pace as the ratio). If no node does, the draft is empty.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from outrider.drafters.tree import Draft
from outrider.speculation.costs import VerifyCost

_PACE_MEMORY = 0.98


@dataclass
class Pace:
    """Recent tokens per second: what a second is worth.

    It counts the expected tokens and seconds of each pass. Once chances and costs are learnt, actual ones have the same
    mean and far more noise: a fifth over a dozen passes (Rao-Blackwell).
    """

    _tokens: float = 0.0
    _seconds: float = 0.0

    def observe(self, tokens: float, seconds: float) -> None:
        """Counts a pass with its drafting, by what was expected."""
        self._tokens = _PACE_MEMORY * self._tokens + tokens
        self._seconds = _PACE_MEMORY * self._seconds + seconds

    def at_least(self, plain: float) -> float:
        """The pace, but never less than plain decoding's."""
        return max(self._tokens / self._seconds, plain) if self._seconds else plain


def best_nodes(drafts: Sequence[Draft], cost: VerifyCost, certain: int, pace: float, most: int) -> list[list[int]]:
    """The nodes worth verifying in one pass, per draft, as indices.

    Args:
        certain: rows of the pass without drafts.
        pace: tokens per second that time is worth.
        most: most nodes, all drafts together.
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
    """(chance, draft, node) of the likeliest nodes, in descending order.

    A child is never likelier than its parent, and follows it, so every prefix is a tree.
    """
    nodes = (
        (chance, number, node)
        for number, draft in enumerate(drafts)
        for node, chance in enumerate(draft.path_probabilities())
    )
    return sorted(nodes, key=lambda n: (-n[0], n[1], n[2]))[:most]
