"""A drafter of your own as a plug-in: it proposes the words of a phrase book. A wrong draft costs time, never a token.

usage: python examples/drafter.py [MODEL]
"""

import sys
from collections.abc import Sequence

from outrider import LLM, SamplingParams
from outrider.drafters.protocol import Ask, Drafter
from outrider.drafters.registry import KINDS, Kind, Settings
from outrider.drafters.tree import ROOT

PHRASES = ["the capital of the country of France.", "once upon a time there was a little girl named Lily."]


class PhraseBook(Drafter):
    """Follows a phrase as soon as the last two tokens stand in it."""

    name = "phrases"

    def __init__(self, phrases: list[list[int]]) -> None:
        self.phrases = phrases

    def propose(self, asks: Sequence[Ask]) -> None:
        """Adds a chain of nodes to the draft of every request."""
        for ask in asks:
            node = ROOT
            for depth, token in enumerate(self._next(ask.sequence.tokens[-2:])[: ask.budget]):
                chance = ask.chances.chance(self.name, (depth,), 0.5)  # learnt from what the target accepted
                node = ask.draft.add(node, token, chance, self.name, (depth,))

    def _next(self, last: list[int]) -> list[int]:
        for phrase in self.phrases:
            for at in range(len(phrase) - 2):
                if phrase[at : at + 2] == last:
                    return phrase[at + 2 :]
        return []


def make(settings: Settings) -> Drafter | None:
    """The drafter for a target; None where it cannot draft."""
    if settings.tokenizer is None:
        return None
    return PhraseBook([settings.tokenizer.encode(phrase, add_bos=False) for phrase in PHRASES])


KINDS.append(Kind("phrases", make))
with LLM(sys.argv[1] if len(sys.argv) > 1 else "demo", drafter=None, lookup=False) as llm:
    drafted = llm.generate("The capital of France is", SamplingParams(max_tokens=32))[0]
    plain = llm.generate("The capital of France is", SamplingParams(max_tokens=32, draft="off"))[0]
    assert drafted.token_ids == plain.token_ids
    print(drafted.text)
    print(f"{drafted.stats.accepted} of {drafted.stats.drafted} drafted tokens accepted")
