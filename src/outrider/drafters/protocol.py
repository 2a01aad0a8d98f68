"""What a source of drafts is: four verbs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from outrider.backends.cpu import KvCache
from outrider.drafters.tree import Draft
from outrider.sampling.choice import TokenChooser

Floats = npt.NDArray[np.float32]


@dataclass
class Ask:
    """What one sequence wants of the drafters: at most `budget` nodes on a path of `draft`, continuing its last token.

    `pinned`: whether it wants them all, worthwhile or not.
    """

    sequence: int
    budget: int
    pinned: bool = False
    draft: Draft = field(default_factory=Draft)


class Drafter(Protocol):
    """Proposes tokens.

    A drafter never decides anything: whatever it proposes, the tokens are the target's own.
    """

    @property
    def name(self) -> str:
        """The source's name in drafts and statistics."""

    def open(self, sequence: int, tokens: list[int], cache: KvCache, chooser: TokenChooser, scope: str | None) -> None:
        """Begins a sequence with its prompt.

        Args:
            tokens: the sequence's own list: it grows as tokens become certain.
            chooser: how the target will choose.
            scope: a drafter may draw on other sequences of the same scope, and on no others; None: on none at all, and
                nothing of this sequence may outlive it.
        """

    def propose(self, asks: Sequence[Ask]) -> None:
        """Adds nodes to every ask's draft."""

    def observe(self, sequence: int, hidden: Floats) -> None:
        """Tells that tokens became certain, the last of them the bonus token.

        hidden: (hidden_size,) float32, the target's final hidden state at the last position whose KV exists.
        """

    def close(self, sequence: int) -> None:
        """Forgets the sequence, which is complete."""
