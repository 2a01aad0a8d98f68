"""MTP drafters of a target with adapters: each adapter's own, where it has one, else the target's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from outrider.drafters.mtp import MtpDrafter
from outrider.drafters.protocol import Ask, CommittedRows, Drafter, SequenceState


class MtpByAdapter(Drafter):
    """Hands each sequence to the drafter of its adapter.

    Args:
        drafters: by adapter; that of None is the target's, and of all adapters without one of their own.
    """

    name = MtpDrafter.name
    hidden = MtpDrafter.hidden

    def __init__(self, drafters: Mapping[str | None, MtpDrafter]) -> None:
        self._drafters = drafters
        self._last: list[MtpDrafter] = []  # those that proposed for the last pass

    def propose(self, asks: Sequence[Ask]) -> None:
        self._last = []
        for drafter in self._drafters.values():
            if own := [ask for ask in asks if self._of(ask.sequence) is drafter]:
                drafter.propose(own)
                self._last.append(drafter)

    def observe(self, sequence: SequenceState, rows: CommittedRows) -> None:
        if (drafter := self._of(sequence)) is not None:
            drafter.observe(sequence, rows)

    def prefetch(self) -> None:
        for drafter in self._last[:1]:  # the caches hold one drafter's weights
            drafter.prefetch()

    def close(self, sequence: SequenceState) -> None:
        if (drafter := self._of(sequence)) is not None:
            drafter.close(sequence)

    def _of(self, sequence: SequenceState) -> MtpDrafter | None:
        return self._drafters.get(sequence.lora, self._drafters.get(None))
