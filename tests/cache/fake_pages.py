"""Pages and caches that hold, in place of keys and values, what they would depend on: so a test sees a wrong row."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from outrider.backends import cpu
from outrider.cache import CachePool
from outrider.cache.sequence import Sequence as CachedSequence

PAGE, WINDOWS, PAGE_BYTES = 4, (0, 5), (100, 30)
"""Positions of a page; by group."""
MAX_ROWS = 6


class FakePage:
    """Slots of one page of one group."""

    def __init__(self, pages: FakePages, group: int, slots: Sequence[object] = (None,) * PAGE) -> None:
        self.group, self.slots, self._pages = group, list(slots), pages
        pages.bytes_in_use += PAGE_BYTES[group]

    def __del__(self) -> None:
        self._pages.bytes_in_use -= PAGE_BYTES[self.group]


class FakePages:
    """As `cpu.KvPages`."""

    def __init__(self) -> None:
        self.windows, self.bytes_in_use = list(WINDOWS), 0

    def page_bytes(self, group: int) -> int:
        return PAGE_BYTES[group]


class FakeCache:
    """As `cpu.KvCache`. The value of a position is the hash of the rows up to it, checked wherever it is read."""

    def __init__(self, pages: FakePages) -> None:
        self._pages, self.length = pages, 0
        self._table: list[dict[int, FakePage]] = [{} for _ in WINDOWS]

    def page(self, group: int, index: int) -> FakePage | None:
        return self._table[group].get(index)

    def drop(self, group: int, index: int) -> None:
        assert (index + 1) * PAGE <= self._first(group, self.length), "the last position sees it"
        self._table[group].pop(index, None)

    def resume(self, groups: Sequence[Sequence[FakePage | None]], length: int) -> None:
        assert self.length == 0
        for group, pages in enumerate(groups):
            for index in range(self._first(group, length) // PAGE, -(-length // PAGE)):
                page = pages[index]
                assert page is not None, f"page {index} of group {group} is missing at {length}"
                assert page.group == group
                full = (index + 1) * PAGE <= length
                self._table[group][index] = page if full else FakePage(self._pages, group, page.slots)
        self.length = length

    def truncate(self, length: int) -> None:
        assert length == 0
        self._table = [{} for _ in WINDOWS]
        self.length = 0

    def compute(self, sequence: CachedSequence, count: int) -> None:
        """Computes and commits the next rows. Fails if what they attend to is not what their sequence has there."""
        expected = chain(sequence.rows(0, self.length + count))
        for group in range(len(WINDOWS)):
            for position in range(self._first(group, self.length), self.length):
                assert self._table[group][position // PAGE].slots[position % PAGE] == expected[position]
            for position in range(self.length, self.length + count):
                page = self._table[group].setdefault(position // PAGE, FakePage(self._pages, group))
                page.slots[position % PAGE] = expected[position]
        self.length += count

    @staticmethod
    def _first(group: int, length: int) -> int:
        return max(length - WINDOWS[group], 0) if WINDOWS[group] else 0


def chain(rows: Sequence[object]) -> list[int]:
    """By position, a hash of all rows up to it."""
    found = [0]
    for row in rows:
        found.append(hash((found[-1], row)))
    return found[1:]


class FakePool(CachePool):
    """A pool of such caches."""

    def new(self) -> FakeCache:
        return FakeCache(self.pages)


def make_pool(monkeypatch: pytest.MonkeyPatch, *, budget: int = 10**9, kept_bytes: int = 10**9) -> FakePool:
    """An empty pool."""
    monkeypatch.setattr(cpu, "PAGE_POSITIONS", PAGE, raising=False)
    return FakePool(FakePages(), 1000, MAX_ROWS, budget=budget, kept_bytes=kept_bytes)
