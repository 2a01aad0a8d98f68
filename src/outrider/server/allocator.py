"""The system's allocator, told to give back what a server no longer needs."""

from __future__ import annotations

import ctypes
import platform

_M_MMAP_THRESHOLD = -3  # of glibc's malloc.h
_LARGE_BYTES = 4 << 20


def give_back_large_blocks() -> bool:
    """From now on, blocks of some megabytes go back to the system as soon as they are freed; whether that is so.

    glibc does that by itself only at first: once such a block was freed, the next ones lie in the heap, which keeps
    them for as long as anything smaller lies behind. Some bodies of 8 MiB at once then stay taken for good. Elsewhere
    nothing is changed.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    return bool(ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES))
