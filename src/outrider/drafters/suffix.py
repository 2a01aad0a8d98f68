"""Where a text said the same before: a suffix automaton over its tokens.

Blumer et al. 1985, "The smallest automaton recognizing the subwords of a text". It grows token by token, in amortised
constant time: at any time the longest suffix that occurred before is one look away.
"""

from __future__ import annotations

from typing import NamedTuple

_RECENT_LINKS = 16
"""How many shorter suffixes learn of a new occurrence; longer chains only arise in long runs of one token."""


class Match(NamedTuple):
    """An earlier occurrence of the text's end: its length, the position that it ended at, and how many different tokens
    followed such text."""

    length: int
    end: int
    successors: int


class SuffixIndex:
    """The suffix automaton of one growing token sequence. At most two states a token."""

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self._next: list[dict[int, int]] = [{}]
        self._link: list[int] = [-1]
        self._length: list[int] = [0]
        self._end: list[int] = [-1]  # where the state's strings ended, the last time seen
        self._last = 0
        self._match: Match | None = None

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

    def __len__(self) -> int:
        return len(self.tokens)

    def match(self) -> Match | None:
        """The longest suffix that also occurred before; None if there is none."""
        return self._match

    def _note(self, position: int) -> None:
        """Remembers the longest earlier occurrence, then makes this position the latest of every suffix."""
        at = self._link[self._last]
        self._match = Match(self._length[at], self._end[at], len(self._next[at])) if at > 0 else None
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


class Cursor:
    """Follows another text through an index, which may grow meanwhile."""

    def __init__(self, index: SuffixIndex) -> None:
        self.index = index
        self._state = 0
        self._length = 0  # of the longest suffix of the other text that the index knows

    def advance(self, token: int) -> None:
        """The other text goes on with `token`."""
        index = self.index
        self._settle()
        while self._state and token not in index._next[self._state]:
            self._state = index._link[self._state]
            self._length = index._length[self._state]
        if token in index._next[self._state]:
            self._state = index._next[self._state][token]
            self._length += 1
        else:
            self._length = 0

    def match(self) -> Match | None:
        """The longest suffix that the index knows; None if it knows none."""
        self._settle()
        index, state = self.index, self._state
        return Match(self._length, index._end[state], len(index._next[state])) if self._length else None

    def _settle(self) -> None:
        """A state is split when shorter suffixes go on in more ways: ours may be among them by now."""
        while self._state and self._length <= self.index._length[self.index._link[self._state]]:
            self._state = self.index._link[self._state]
