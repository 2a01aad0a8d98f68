"""How many threads compute: one for each core that this process can really keep busy.

A pass ends each of its calls at a barrier, so every thread beyond that makes the others wait: one that shares a core
with another, one on a core much slower than the rest, or one that the quota of a container stops.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from outrider.machine import control_groups
from outrider.system import cores_of, permitted_processors
from outrider.system.linux import text_of


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
    cpus = permitted_processors()
    physical, fast = cores_of(cpus)
    count = len(fast)
    quota = quota_of_groups()
    whole = None if quota is None else max(1, int(quota))
    threads, most = min(count, whole or count), min(len(physical), whole or len(physical))
    return Cores(threads, most, _reason(os.cpu_count() or 1, len(cpus), len(physical), count, quota))


def too_many_threads(threads: int) -> str | None:
    """A warning if there are more threads than cores that this process may use."""
    if threads <= (usable := cores().most):
        return None
    return f"{threads} threads share {usable} usable core(s) and wait for each other in every step: use {usable}"


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


def quota_of_groups() -> float | None:
    """Processor time per time that the control groups allow, in cores; None without a limit."""
    found = []
    for group in control_groups("cpu"):
        files = ("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")  # of versions 2 and 1
        for limit in (" ".join(text_of(group / name) for name in names).split() for names in files):
            if len(limit) == 2 and all(number.isdecimal() for number in limit) and int(limit[1]) > 0:
                found.append(int(limit[0]) / int(limit[1]))
    return min(found, default=None)
