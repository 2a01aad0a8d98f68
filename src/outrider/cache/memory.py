"""Bytes of a cache."""

from __future__ import annotations

from collections.abc import Sequence

from outrider.backends import cpu
from outrider.program import KvLayer

_PAGE_BYTES = 4096
_ELEMENT_BYTES: dict[cpu.KvFormat, int] = {"float32": 4, "float16": 2, "int8": 1}
_SCALE_BYTES = 4  # of one head at one position, where the format has scales
_BLOCK_POSITIONS = 16
_RING_SLACK = 32
"""Slots of a sliding layer besides its window and the rows of a pass; see csrc/cache/kv_cache.cpp."""


def cache_bytes(shapes: Sequence[cpu.KvShape | KvLayer], positions: int, max_rows: int, kv_format: cpu.KvFormat) -> int:
    """Resident bytes of a cache in which `positions` positions were ever written.

    The whole context is reserved, but pages become resident as they are touched: per layer and head, a run of keys and
    a run of values.
    """
    total = 0
    for shape in shapes:
        slots = min(positions, shape.window + max_rows + _RING_SLACK) if shape.window else positions
        slots = _up(slots, _BLOCK_POSITIONS)
        total += 2 * shape.kv_heads * _up(slots * shape.head_dim * _ELEMENT_BYTES[kv_format], _PAGE_BYTES)
        if kv_format == "int8":
            total += 2 * shape.kv_heads * _up(slots * _SCALE_BYTES, _PAGE_BYTES)
    return total


def _up(number: int, step: int) -> int:
    return -(-number // step) * step
