"""What memory the machine and the container give this process, and where the container writes its limits.

Containers are Linux control groups, of version 2 or 1. Each group of the process and each of those around it may have
limits; the tightest counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from outrider.system import free_memory
from outrider.system.linux import text_of

_MEMINFO, _OWN_GROUPS, _GROUPS = Path("/proc/meminfo"), Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")
_NO_LIMIT = 1 << 60
"""Version 1 writes "no limit" as a number beyond it."""
_MEMORY_FILES = (
    ("memory.max", "memory.current", ("inactive_file", "active_file")),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", ("total_inactive_file", "total_active_file")),
)
"""Of versions 2 and 1: limit, use, and the lines of memory.stat that are page cache, which the kernel gives up."""


@dataclass(frozen=True)
class Memory:
    """Memory for this process, in bytes.

    Attributes:
        available: what can be allocated without swapping.
        swap: what can be swapped out beyond that (to a disk, or compressed); None where that is not known.
        contained: whether a container's limit is what is left, not the machine's memory.
    """

    available: int
    swap: int | None
    contained: bool


def memory() -> Memory:
    """The memory that is left now: the least of the machine's and of its control groups'."""
    figures = _figures(_MEMINFO, scale=1024)
    if "MemAvailable" not in figures:
        return Memory(free_memory(), None, contained=False)
    machine, groups = figures["MemAvailable"], list(control_groups("memory"))
    left = min((found for group in groups if (found := _left_in(group)) is not None), default=machine)
    swaps = [figures.get("SwapFree", 0), *(found for group in groups if (found := _swap_left_in(group)) is not None)]
    return Memory(min(machine, left), min(swaps), contained=left < machine)


def available_bytes() -> int:
    """Bytes that this process can allocate without swapping."""
    return memory().available


def size(count: int) -> str:
    """Bytes for a person, in powers of 1000."""
    value = float(count)
    for unit in ("B", "kB", "MB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.2f} GB"


def control_groups(controller: str) -> Iterator[Path]:
    """The folders of the process's control groups with this controller, each with those around it.

    In a container the path may be the host's: its folders are not there then, and the root is the container's own.
    """
    for line in text_of(_OWN_GROUPS).splitlines():
        _, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        if names and controller not in names.split(","):
            continue
        root, parts = _GROUPS / controller if names else _GROUPS, PurePosixPath(path).parts[1:]
        for depth in range(0 if ".." in parts else len(parts), -1, -1):
            yield root.joinpath(*parts[:depth])


def _left_in(group: Path) -> int | None:
    """Bytes up to a group's limit; page cache counts as free. None without a limit."""
    for limit_file, used_file, cached in _MEMORY_FILES:
        limit, used = text_of(group / limit_file).strip(), text_of(group / used_file).strip()
        if limit.isdecimal() and used.isdecimal() and int(limit) < _NO_LIMIT:
            figures = _figures(group / "memory.stat")
            return max(int(limit) - int(used) + sum(figures.get(name, 0) for name in cached), 0)
    return None


def _swap_left_in(group: Path) -> int | None:
    limit, used = text_of(group / "memory.swap.max").strip(), text_of(group / "memory.swap.current").strip()
    return max(int(limit) - int(used), 0) if limit.isdecimal() and used.isdecimal() else None


def _figures(path: Path, scale: int = 1) -> dict[str, int]:
    """Name -> number of a file of lines such as "MemAvailable: 64 kB"."""
    lines = (line.split() for line in text_of(path).splitlines())
    return {line[0].rstrip(":"): int(line[1]) * scale for line in lines if len(line) > 1 and line[1].isdecimal()}
