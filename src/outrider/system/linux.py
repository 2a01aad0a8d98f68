"""Cores from the files of the Linux kernel."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from outrider.system.kinds import CoresOf

_DEVICES = Path("/sys/devices")
_FAST = 0.6
"""Cores with less than this share of the fastest one's speed are efficiency cores: those of ARM's and Apple's
processors have 0.2 to 0.45 of it, middle ones of ARM's 0.7 to 0.9, preferred ones of a kind differ by some percent."""


def cores_of(processors: Iterable[int]) -> CoresOf:
    """The cores of these processors."""
    physical = one_per_core(processors, _DEVICES)
    return CoresOf(physical, performance(physical, _DEVICES))


def tie_to(processors: Iterable[int]) -> bool:
    """Ties the caller's thread, and those that it starts from now on, to these processors. Returns True."""
    os.sched_setaffinity(0, processors)
    return True


def one_per_core(cpus: Iterable[int], devices: Path) -> list[int]:
    """The first of the processors (hyper-threads) on each core. devices: the folder /sys/devices."""
    left, chosen = set(cpus), []
    while left:
        first = min(left)
        topology = devices / f"system/cpu/cpu{first}/topology"
        siblings = text_of(topology / "core_cpus_list") or text_of(
            topology / "thread_siblings_list"
        )  # before Linux 5.3
        left -= {first, *cpus_of(siblings)}
        chosen.append(first)
    return chosen


def performance(cpus: list[int], devices: Path) -> list[int]:
    """Those on performance cores; all where none is faster, or nothing tells. devices: as for `one_per_core`."""
    listed = cpus_of(text_of(devices / "cpu_core/cpus"))  # Intel's hybrid processors; the others are cpu_atom
    if listed.intersection(cpus):
        return [cpu for cpu in cpus if cpu in listed]
    for name in ("cpu_capacity", "cpufreq/cpuinfo_max_freq"):
        speeds = [text_of(devices / f"system/cpu/cpu{cpu}" / name).strip() for cpu in cpus]
        if all(speed.isdecimal() for speed in speeds) and len(set(speeds)) > 1:
            fastest = max(map(int, speeds))
            return [cpu for cpu, speed in zip(cpus, speeds, strict=True) if int(speed) >= _FAST * fastest]
    return cpus


def cpus_of(listed: str) -> set[int]:
    """Numbers of a list such as "0-3,8"; none if it is no such list."""
    found: set[int] = set()
    for part in listed.strip().split(","):
        first, _, last = part.partition("-")
        if not first.isdecimal() or not (last or first).isdecimal():
            return set()
        found.update(range(int(first), int(last or first) + 1))
    return found


def text_of(path: Path) -> str:
    """A file's text; nothing if it cannot be read."""
    try:
        return path.read_text()
    except (OSError, ValueError):
        return ""
