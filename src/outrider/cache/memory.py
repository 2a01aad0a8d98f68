"""Memory: bytes of a cache, and bytes that this machine has left."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from outrider.backends import cpu
from outrider.program import KvLayer

_PAGE_BYTES = 4096
_ELEMENT_BYTES: dict[cpu.KvFormat, int] = {"float32": 4, "float16": 2, "int8": 1}
_SCALE_BYTES = 4  # of one head at one position, where the format has scales
_BLOCK_POSITIONS = 16
_RING_SLACK = 32
"""Slots of a sliding layer besides its window and the rows of a pass; see csrc/cache/kv_cache.cpp."""
_MEMINFO, _CGROUP = Path("/proc/meminfo"), Path("/sys/fs/cgroup")


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


def available_bytes() -> int:
    """Bytes that this process can allocate without swapping: the least of the machine's and its control group's."""
    known = [found for found in (_machine_bytes(), _group_bytes()) if found is not None]
    return min(known, default=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2)


def _machine_bytes() -> int | None:
    try:
        lines = _MEMINFO.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)


def _group_bytes() -> int | None:
    try:
        limit = (_CGROUP / "memory.max").read_text().strip()
        used = int((_CGROUP / "memory.current").read_text())
    except (OSError, ValueError):
        return None
    return None if limit == "max" else max(int(limit) - used, 0)


def _up(number: int, step: int) -> int:
    return -(-number // step) * step
