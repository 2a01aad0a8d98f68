"""How many threads compute: one for each core that this process can really keep busy.

A pass ends each of its calls at a barrier, so every thread beyond that makes the others wait: one that shares a core
with another, one on a core much slower than the rest, or one that the quota of a container stops.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from outrider.machine import control_groups, text_of

_DEVICES = Path("/sys/devices")
_FAST = 0.6
"""Cores with less than this share of the fastest one's speed are efficiency cores: those of ARM's and Apple's
processors have 0.2 to 0.45 of it, middle ones of ARM's 0.7 to 0.9, preferred ones of a kind differ by some percent."""


@dataclass(frozen=True)
class Cores:
    """The cores for this process.

    Attributes:
        threads: that compute unless another number is given.
        most: that have a core each; more of them share cores. Efficiency cores count too.
        why: what decided `threads`, for a person.
    """

    threads: int
    most: int
    why: str


def cores() -> Cores:
    """The cores that this process can keep busy now."""
    cpus = _allowed()
    physical = one_per_core(cpus, _DEVICES)
    fast = performance(physical, _DEVICES)
    count = min(len(fast), _apple_performance_cores() or len(fast))
    quota = quota_of_groups()
    whole = None if quota is None else max(1, int(quota))
    threads, most = min(count, whole or count), min(len(physical), whole or len(physical))
    return Cores(threads, most, _reason(os.cpu_count() or 1, len(cpus), len(physical), count, quota))


def _reason(present: int, allowed: int, physical: int, performance: int, quota: float | None) -> str:
    """What narrows the processors of the machine down to the threads."""
    narrowed = []
    if allowed < present:
        narrowed.append(f"affinity to {allowed} of {present} processors")
    if physical < allowed:
        narrowed.append(f"{physical} physical cores of {allowed} hyper-threads")
    if performance < physical:
        narrowed.append(f"{performance} performance cores of {physical}")
    if quota is not None and quota < performance:
        narrowed.append(f"a CPU quota of {quota:g} of {performance} cores")
    return ", ".join(narrowed) or "all cores"


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


def too_many_threads(threads: int) -> str | None:
    """A warning if there are more threads than cores that this process may use."""
    if threads <= (usable := cores().most):
        return None
    return f"{threads} threads share {usable} usable core(s) and wait for each other in every step: use {usable}"


def quota_of_groups() -> float | None:
    """Processor time per time that the control groups allow, in cores; None without a limit."""
    found = []
    for group in control_groups("cpu"):
        files = ("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")  # of versions 2 and 1
        for limit in (" ".join(text_of(group / name) for name in names).split() for names in files):
            if len(limit) == 2 and all(number.isdecimal() for number in limit) and int(limit[1]) > 0:
                found.append(int(limit[0]) / int(limit[1]))
    return min(found, default=None)


def _allowed() -> list[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _apple_performance_cores() -> int | None:
    """Performance cores of a Mac; None elsewhere."""
    if sys.platform != "darwin":
        return None
    asked = subprocess.run(
        ["/usr/sbin/sysctl", "-n", "hw.perflevel0.physicalcpu"], capture_output=True, text=True, check=False
    )
    return int(asked.stdout) if asked.stdout.strip().isdecimal() else None
