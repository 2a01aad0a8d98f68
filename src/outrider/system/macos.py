"""Cores of a Mac."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable

from outrider.system.kinds import CoresOf


def cores_of(processors: Iterable[int]) -> CoresOf:
    """The cores of these processors. Macs with ARM64 have no hyper-threads; which core is fast has no number."""
    physical = list(processors)
    return CoresOf(physical, physical[: _performance_cores()])


def tie_to(_processors: Iterable[int]) -> bool:
    """Ties no thread to processors, for which macOS has no call. Returns False."""
    return False


def _performance_cores() -> int | None:
    """Their number; None where the system does not report it."""
    asked = subprocess.run(
        ["/usr/sbin/sysctl", "-n", "hw.perflevel0.physicalcpu"], capture_output=True, text=True, check=False
    )
    return int(asked.stdout) if asked.stdout.strip().isdecimal() else None
