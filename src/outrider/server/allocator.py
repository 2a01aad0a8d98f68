"""Settings of the C library's allocator for a process that runs for long."""

from __future__ import annotations

import ctypes
import platform

_M_MMAP_THRESHOLD = -3  # of glibc's malloc.h
_LARGE_BYTES = 4 << 20


def return_large_blocks() -> bool:
    """Makes glibc return blocks of some megabytes to the system as soon as they are freed; False on other systems.

    By default glibc raises its threshold with the first such block that is freed. Later blocks come from the heap,
    which cannot shrink below anything allocated after them: some bodies of 8 MiB at once would stay allocated.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    return bool(ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES))
