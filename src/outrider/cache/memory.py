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


def bytes_per_position(layers: Iterable[KvLayer], kv_format: cpu.KvFormat) -> dict[str, int]:
    """Bytes of one position in all layers of full attention ("full") and with a window ("sliding")."""
    pages = cpu.KvPages(cpu.kv_shapes(layers), kv_format)
    sizes = {"full": 0, "sliding": 0}
    for group, window in enumerate(pages.windows):
        sizes["sliding" if window else "full"] += pages.page_bytes(group) // cpu.PAGE_POSITIONS
    return sizes


def _pages(positions: int) -> int:
    return -(-positions // cpu.PAGE_POSITIONS)
