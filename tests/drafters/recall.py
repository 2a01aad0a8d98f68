"""A toy drafter with keys and values of its own: what followed the row that is most like the last one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from outrider.arrays import Floats
from outrider.drafters.protocol import Ask, CommittedRows, Drafter, SequenceState
from outrider.drafters.registry import Kind
from outrider.drafters.tree import ROOT


class RecallDrafter(Drafter):
    """Keeps every committed row: its hidden state is the key, its place the value."""

    name = "recall"
    hidden = "all"

    def __init__(self) -> None:
        self.rows: dict[int, list[CommittedRows]] = {}

    def open(self, sequence: SequenceState) -> None:
        """See `Drafter.open`."""
        self.rows[sequence.number] = []

    def observe(self, sequence: SequenceState, rows: CommittedRows) -> None:
        """See `Drafter.observe`."""
        self.rows[sequence.number].append(rows)

    def propose(self, asks: Sequence[Ask]) -> None:
        """One chain for every ask."""
        for ask in asks:
            tokens = ask.sequence.tokens
            keys = np.concatenate([rows.hidden for rows in self.rows[ask.sequence.number]])
            best, parent = _most_alike(keys), ROOT
            for token in tokens[best + 2 : best + 2 + ask.budget] if best is not None else []:
                chance = ask.chances.chance(self.name, (), 0.5)
                parent = ask.draft.add(parent, token, chance, self.name)

    def close(self, sequence: SequenceState) -> None:
        """See `Drafter.close`."""
        del self.rows[sequence.number]


def _most_alike(keys: Floats) -> int | None:
    """The row most like the last one, by cosine; None if there is none before it."""
    if len(keys) < 2:
        return None
    return int(np.argmax(keys[:-1] @ keys[-1] / (np.linalg.norm(keys[:-1], axis=1) + 1e-9)))


RECALL = Kind("recall", lambda _settings: RecallDrafter())
