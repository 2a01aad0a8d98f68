"""Sequences without a model, and what drafters propose for them."""

from __future__ import annotations

from outrider import SamplingParams
from outrider.drafters.protocol import Ask, Drafter, Features, SequenceState
from outrider.sampling.choice import TokenChooser


class Half:
    """Every token is accepted in one of two cases."""

    def chance(self, _source: str, _features: Features, _guess: float) -> float:
        return 0.5

    def observe(self, *_: object) -> None:
        """Nothing is learnt."""


def sequence(number: int, tokens: list[int], scope: str | None = "") -> SequenceState:
    """A sequence whose text is `tokens`, without cache, chosen greedily."""
    chooser = TokenChooser(SamplingParams())
    return SequenceState(number, tokens, None, chooser, len(tokens) + 1000, scope=scope)  # type: ignore[arg-type]


def proposed(drafter: Drafter, state: SequenceState, budget: int) -> list[int]:
    """The tokens of a draft."""
    ask = Ask(state, budget, Half())
    drafter.propose([ask])
    return [node.token for node in ask.draft]
