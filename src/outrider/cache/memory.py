"""Bytes of a cache."""

from __future__ import annotations

from collections.abc import Iterable

from outrider.backends import cpu
from outrider.program import KvLayer


def cache_bytes(layers: Iterable[KvLayer], positions: int, max_rows: int, kv_format: cpu.KvFormat) -> int:
    """Bytes of the pages of one sequence; see `sequence_bytes`."""
    return sequence_bytes(cpu.KvPages(cpu.kv_shapes(layers), kv_format), positions, max_rows)


def sequence_bytes(pages: cpu.KvPages, positions: int, max_rows: int, *, shared: int = 0) -> int:
    """The most bytes that a sequence takes while it grows to `positions`: the pages of all of them, in a sliding layer
    those of its window and one pass.

    Args:
        shared: pages of full attention that others have.
    """
    total, count = 0, pages_of(positions)
    for group, window in enumerate(pages.windows):
        held = min(count, pages_of(window + max_rows) + 1) if window else max(count - shared, 0)
        total += held * pages.page_bytes(group)
    return total


def bytes_per_position(layers: Iterable[KvLayer], kv_format: cpu.KvFormat) -> dict[str, int]:
    """Bytes of one position in all layers of full attention ("full") and with a window ("sliding")."""
    pages = cpu.KvPages(cpu.kv_shapes(layers), kv_format)
    sizes = {"full": 0, "sliding": 0}
    for group, window in enumerate(pages.windows):
        sizes["sliding" if window else "full"] += pages.page_bytes(group) // cpu.PAGE_POSITIONS
    return sizes


def pages_of(positions: int) -> int:
    """Pages that hold so many positions."""
    return -(-positions // cpu.PAGE_POSITIONS)
