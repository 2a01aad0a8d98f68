"""Bytes of a cache."""

from __future__ import annotations

from collections.abc import Iterable

from outrider.backends import cpu
from outrider.program import KvLayer


def cache_bytes(layers: Iterable[KvLayer], positions: int, max_rows: int, kv_format: cpu.KvFormat) -> int:
    """Bytes of the pages of one sequence: of all positions, in a sliding layer of its window and one pass."""
    pages = cpu.KvPages(cpu.kv_shapes(layers), kv_format)
    total = 0
    for group, window in enumerate(pages.windows):
        count = _pages(positions)
        if window:
            count = min(count, _pages(window + max_rows) + 1)
        total += count * pages.page_bytes(group)
    return total


def _pages(positions: int) -> int:
    return -(-positions // cpu.PAGE_POSITIONS)
