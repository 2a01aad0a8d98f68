"""Whether a sequence fits into memory beside those that run, whatever they come to compute."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence

from outrider.backends import cpu
from outrider.cache.memory import pages_of, sequence_bytes
from outrider.cache.node import Node
from outrider.cache.sequence import Sequence as CachedSequence
from outrider.cache.states import AnyPage, StatePages
from outrider.errors import OutriderError
from outrider.machine import size


class Admission:
    """Counts worst cases; see `sequence_bytes`. A page that several sequences use counts once, and one that none uses
    does not count, as it can be evicted.

    Args:
        max_rows: most rows of one pass.
        budget: bytes of all pages.
        states: of drafters, which every page may have.
    """

    def __init__(self, pages: cpu.KvPages, max_rows: int, budget: int, states: StatePages) -> None:
        self._pages, self._max_rows, self.budget = pages, max_rows, budget
        self._states = sum(states.page_bytes)
        full = (pages.page_bytes(group) for group, window in enumerate(pages.windows) if not window)
        self._full = sum(full) + self._states

    def check(self, limit: int) -> None:
        """Raises OutriderError if a sequence of `limit` positions could not even run alone."""
        if (worst := self._worst(limit)) <= self.budget:
            return
        raise OutriderError(
            f"the request may come to {limit:,} tokens, prompt and answer, whose keys and values take {size(worst)}; "
            f"{size(self.budget)} of memory are there for them: at most {self.longest(limit):,} tokens fit: "
            "lower max_tokens, or shorten the prompt"
        )

    def longest(self, limit: int) -> int:
        """The most positions of a sequence that fits alone, at most `limit`."""
        fitting = bisect_right(range(limit + 1), self.budget, key=self._worst)
        return max(fitting - 1, 0)

    def fits(self, limit: int, taken: Sequence[Node[AnyPage]], used: int, running: Iterable[CachedSequence]) -> bool:
        """Whether a sequence that takes these nodes of the tree fits beside the running ones, which use `used`."""
        shared = used + sum(1 for node in taken if node.users == 0)
        own = sum(self._worst(other.limit, len(other.path) - other.own) for other in running)
        return shared * self._full + own + self._worst(limit, len(taken)) <= self.budget

    def _worst(self, limit: int, shared: int = 0) -> int:
        layers = sequence_bytes(self._pages, limit, self._max_rows, shared=shared)
        return layers + max(pages_of(limit) - shared, 0) * self._states
