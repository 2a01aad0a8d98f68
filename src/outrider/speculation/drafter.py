"""What a source of drafts is: four verbs."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from outrider.kernels import KvCache
from outrider.sampling.params import SamplingParams
from outrider.speculation.tree import Draft

Floats = npt.NDArray[np.float32]


class Drafter(Protocol):
    """Proposes tokens for one sequence at a time.

    A drafter never decides anything: whatever it proposes, the tokens are the target's own.
    """

    @property
    def name(self) -> str:
        """The source's name in drafts and statistics."""

    def open(self, sequence: int, tokens: list[int], cache: KvCache, params: SamplingParams) -> None:
        """Begins a sequence with its prompt. `tokens` is the sequence's own list: it grows as tokens become certain."""

    def propose(self, sequence: int, draft: Draft, budget: int) -> None:
        """Adds at most `budget` nodes to `draft`, continuing the sequence's last token."""

    def observe(self, sequence: int, hidden: Floats) -> None:
        """Tells that tokens became certain, the last of them the bonus token.

        hidden: (hidden_size,) float32, the target's final hidden state at the last position whose KV exists.
        """

    def close(self, sequence: int) -> None:
        """Forgets the sequence."""
