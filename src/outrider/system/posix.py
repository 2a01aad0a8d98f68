"""What Linux and macOS have in common: processors, memory, files, the terminal and the encoding of pipes."""

from __future__ import annotations

import os
import stat
import sys
import tempfile
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def permitted_processors() -> list[int]:
    """The numbers of the processors (hyper-threads) on which this process may run."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def free_memory() -> int:
    """Bytes that can be allocated without swapping, estimated: half of the machine's."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def remedy_to_make_private(folder: Path) -> str | None:
    """What to do so that nobody but this user can write to the folder; None if that is so. Raises OSError."""
    about = folder.stat()
    if about.st_uid == os.geteuid() and not about.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return None
    return "chmod 700 it, as its owner, or name another"


def temporary_folder(name: str) -> Path:
    """A folder of this user among the temporary files. Others may have made it: see `remedy_to_make_private`."""
    return Path(tempfile.gettempdir(), f"{name}-{os.getuid()}")


def open_regular(path: Path) -> int:
    """A descriptor that reads the file. Neither follows a link nor waits for the writer of a pipe.

    Raises:
        OSError: it cannot be opened; with errno ELOOP, it is a link.
    """
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)


_PASTE_IS_MARKED, _PASTE_IS_NOT = "\033[?2004h", "\033[?2004l"


@contextmanager
def unechoed() -> Iterator[None]:
    """While it is open, keys are not echoed by the terminal. What is typed is read later, a pasted text as one."""
    before = termios.tcgetattr(sys.stdin)
    quiet = [*before]
    quiet[3] &= ~(termios.ECHO | termios.ICANON)
    termios.tcsetattr(sys.stdin, termios.TCSANOW, quiet)
    sys.stdout.write(_PASTE_IS_MARKED)
    try:
        yield
    finally:
        sys.stdout.write(_PASTE_IS_NOT)
        sys.stdout.flush()
        termios.tcsetattr(sys.stdin, termios.TCSANOW, before)


def use_utf8() -> None:
    """Standard input and output have the encoding of the locale, which is UTF-8."""
