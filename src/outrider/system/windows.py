"""Windows: processors, memory and the terminal by calls of kernel32; files, and the encoding of pipes."""

from __future__ import annotations

import ctypes
import io
import os
import struct
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from outrider.system.kinds import CoresOf

assert sys.platform == "win32"  # for type checkers, which skip the rest elsewhere

_CORES = 0  # LOGICAL_PROCESSOR_RELATIONSHIP.RelationProcessorCore
_CORE = struct.Struct("<4xI1xB20xH")
"""The start of a SYSTEM_LOGICAL_PROCESSOR_INFORMATION_EX: its size, the efficiency class, the number of masks."""
_MASK = struct.Struct("<QH6x")
"""A GROUP_AFFINITY: the bits of a group's processors, and the group."""
_GROUP = 64
"""Processors of a group; those of group g have the numbers from 64 g."""
_INPUT_HANDLE = -10  # STD_INPUT_HANDLE
_LINES_AND_ECHO = 0x2 | 0x4  # ENABLE_LINE_INPUT, ENABLE_ECHO_INPUT


class _MemoryStatus(ctypes.Structure):
    """MEMORYSTATUSEX."""

    _fields_ = (
        ("length", ctypes.c_uint32),
        ("load", ctypes.c_uint32),
        *((name, ctypes.c_uint64) for name in ("total", "free", "commit_limit", "commit_free")),
        *((name, ctypes.c_uint64) for name in ("addresses", "addresses_free", "extended")),
    )


class _Core(NamedTuple):
    efficiency_class: int  # a higher one is faster
    processors: list[int]


def permitted_processors() -> list[int]:
    """The numbers of the processors (hyper-threads) on which this process may run."""
    own, system = ctypes.c_size_t(), ctypes.c_size_t()
    kernel = ctypes.windll.kernel32
    process = ctypes.c_void_p(kernel.GetCurrentProcess())
    listed = [number for core in _cores() for number in core.processors]
    groups = {number // _GROUP for number in listed}
    asked = kernel.GetProcessAffinityMask(process, ctypes.byref(own), ctypes.byref(system))
    if len(groups) == 1 and asked and own.value:  # threads in several groups have no common mask
        return [number for number in sorted(listed) if own.value >> number % _GROUP & 1]
    return sorted(listed) or list(range(os.cpu_count() or 1))


def tie_to(_processors: Iterable[int]) -> bool:
    """Ties no thread to processors: their groups would need another call for each. Returns False."""
    return False


def cores_of(processors: Iterable[int]) -> CoresOf:
    """The cores of these processors."""
    wanted, physical = set(processors), []
    for core in _cores():
        on_it = sorted(wanted.intersection(core.processors))
        if on_it:
            physical.append((on_it[0], core.efficiency_class))
    if not physical:
        return CoresOf(sorted(wanted), sorted(wanted))
    fastest = max(efficiency for _, efficiency in physical)
    return CoresOf(
        sorted(number for number, _ in physical),
        sorted(number for number, efficiency in physical if efficiency == fastest),
    )


def _cores() -> list[_Core]:
    """All cores of the machine; none where the system does not report them."""
    ask = ctypes.windll.kernel32.GetLogicalProcessorInformationEx
    size = ctypes.c_uint32()
    ask(_CORES, None, ctypes.byref(size))
    records = ctypes.create_string_buffer(size.value)
    return read_cores(records.raw[: size.value]) if ask(_CORES, records, ctypes.byref(size)) else []


def read_cores(records: bytes) -> list[_Core]:
    """The cores of what GetLogicalProcessorInformationEx writes."""
    found, at = [], 0
    while at < len(records):
        size, efficiency, masks = _CORE.unpack_from(records, at)
        processors = []
        for number in range(masks):
            bits, group = _MASK.unpack_from(records, at + _CORE.size + number * _MASK.size)
            processors += [group * _GROUP + bit for bit in range(_GROUP) if bits >> bit & 1]
        found.append(_Core(efficiency, processors))
        at += size
    return found


def free_memory() -> int:
    """Bytes that can be allocated without swapping."""
    status = _MemoryStatus(length=ctypes.sizeof(_MemoryStatus))
    if not ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status)):
        raise ctypes.WinError()
    return int(status.free)


def remedy_to_make_private(folder: Path) -> str | None:
    """What to do so that nobody but this user can write to the folder; None if that is so. Raises OSError.

    The access list of the user's own folder keeps others out of all that is in it.
    """
    try:
        private = folder.resolve().is_relative_to(Path.home().resolve())
    except RuntimeError:  # no such folder
        private = False
    return None if private else "name one in your own folder (%USERPROFILE%)"


def temporary_folder(name: str) -> Path:
    """A folder of this user among the temporary files, which are the user's own here."""
    return Path(tempfile.gettempdir(), name)


def open_regular(path: Path) -> int:
    """A descriptor that reads the file. Pipes have no paths in folders here; to make a link takes a privilege."""
    return os.open(path, os.O_RDONLY | os.O_BINARY | os.O_NOINHERIT)


@contextmanager
def unechoed() -> Iterator[None]:
    """While it is open, keys are not echoed by the console; what is typed is read later."""
    kernel, before = ctypes.windll.kernel32, ctypes.c_uint32()
    console = ctypes.c_void_p(kernel.GetStdHandle(_INPUT_HANDLE))
    if not kernel.GetConsoleMode(console, ctypes.byref(before)):  # no console, but a terminal of another kind
        yield
        return
    kernel.SetConsoleMode(console, before.value & ~_LINES_AND_ECHO)
    try:
        yield
    finally:
        kernel.SetConsoleMode(console, before.value)


def use_utf8() -> None:
    """Makes standard input and output UTF-8; where they are no console, they have the system's code page."""
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8")
