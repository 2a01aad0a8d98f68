"""Prompt lookup: what followed the longest suffix of the text the last time it occurred.

It costs no model pass. The index is a suffix automaton (Blumer et al. 1985, "The smallest automaton recognizing the
subwords of a text"), grown token by token: at any time the longest suffix that occurred before is one look away, and
a token costs amortised constant time. Prompt lookup as a drafter: Saxena 2023; with a suffix automaton: Hu et al. 2024.
"""

from __future__ import annotations

from collections.abc import Callable

from outrider.kernels import KvCache
from outrider.sampling.params import SamplingParams
from outrider.speculation.drafter import Floats
from outrider.speculation.tree import ROOT, Draft

MIN_MATCH = 2
"""A single token's last successor is right too rarely to be worth a row."""
_RECENT_LINKS = 16
"""How many shorter suffixes learn of a new occurrence; longer chains only arise in long runs of one token."""


class SuffixIndex:
    """The suffix automaton of one growing token sequence. At most two states a token."""

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self._next: list[dict[int, int]] = [{}]
        self._link: list[int] = [-1]
        self._length: list[int] = [0]
        self._end: list[int] = [-1]  # where the state's strings ended, the last time seen
        self._last = 0
        self._match: tuple[int, int] | None = None

    def append(self, token: int) -> None:
        """Adds one token."""
        position = len(self.tokens)
        self.tokens.append(token)
        state = self._new(self._length[self._last] + 1, {}, -1, position)
        at = self._last
        while at != -1 and token not in self._next[at]:
            self._next[at][token] = state
            at = self._link[at]
        if at == -1:
            self._link[state] = 0
        else:
            target = self._next[at][token]
            if self._length[target] == self._length[at] + 1:
                self._link[state] = target
            else:
                self._link[state] = self._split(at, target, token)
        self._last = state
        self._note(position)

    def match(self) -> tuple[int, int] | None:
        """(length, end) of the longest suffix that also occurred before, and where that occurrence ended; or None."""
        return self._match

    def _note(self, position: int) -> None:
        """Remembers the longest earlier occurrence, then makes this position the latest of every suffix."""
        at = self._link[self._last]
        self._match = (self._length[at], self._end[at]) if at > 0 else None
        for _ in range(_RECENT_LINKS):
            if at <= 0:
                break
            self._end[at] = position
            at = self._link[at]

    def _split(self, at: int, target: int, token: int) -> int:
        clone = self._new(self._length[at] + 1, dict(self._next[target]), self._link[target], self._end[target])
        self._link[target] = clone
        while at != -1 and self._next[at].get(token) == target:
            self._next[at][token] = clone
            at = self._link[at]
        return clone

    def _new(self, length: int, following: dict[int, int], link: int, end: int) -> int:
        self._next.append(following)
        self._link.append(link)
        self._length.append(length)
        self._end.append(end)
        return len(self._length) - 1


class LookupDrafter:
    """Proposes one chain: the tokens that followed the match.

    Args:
        chance: the estimated probability that the next token of a match of the given length is right (see
            `controller.Calibration`).
    """

    name = "lookup"

    def __init__(self, chance: Callable[[int], float]) -> None:
        self._chance = chance
        self._indices: dict[int, SuffixIndex] = {}
        self._texts: dict[int, list[int]] = {}

    def open(self, sequence: int, tokens: list[int], cache: KvCache, params: SamplingParams) -> None:  # noqa: ARG002
        """Indexes the prompt; see `Drafter.open`."""
        self._indices[sequence] = SuffixIndex()
        self._texts[sequence] = tokens

    def match_length(self, sequence: int) -> int:
        """Length of the match that the next proposal would continue; 0 if there is none."""
        match = self._caught_up(sequence).match()
        return match[0] if match and match[0] >= MIN_MATCH else 0

    def propose(self, sequence: int, draft: Draft, budget: int) -> None:
        """See `Drafter.propose`."""
        index = self._caught_up(sequence)
        match = index.match()
        if match is None or match[0] < MIN_MATCH:
            return
        length, end = match
        chance, parent = self._chance(length), ROOT
        # A match that overlaps the end of the text repeats itself: go on reading what was just proposed.
        known = len(index.tokens)
        text = index.tokens[end + 1 :]
        for step in range(budget):
            token = index.tokens[end + 1 + step] if end + 1 + step < known else text[step % len(text)]
            parent = draft.add(parent, token, chance, self.name)

    def observe(self, sequence: int, hidden: Floats) -> None:
        """Nothing to learn here: the index reads the sequence's tokens itself."""

    def close(self, sequence: int) -> None:
        """See `Drafter.close`."""
        del self._indices[sequence], self._texts[sequence]

    def _caught_up(self, sequence: int) -> SuffixIndex:
        index, tokens = self._indices[sequence], self._texts[sequence]
        for token in tokens[len(index.tokens) :]:
            index.append(token)
        return index
