"""Cores that a process has for itself: Ray counts processors, but ties no process to any.

Each core of a node is a lock file, which the system releases when its process ends, however that happens.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from filelock import FileLock, Timeout

from outrider.system import cores_of, permitted_processors, remedy_to_make_private, temporary_folder, tie_to

_held: list[FileLock] = []


def claim_cores(wanted: int, folder: Path | None = None) -> list[int]:
    """Claims cores until this process ends. Threads that the caller's thread starts from now on run on these alone.

    Args:
        folder: of the lock files; by default one of this user among the temporary files.

    Returns the first processor of each core; none if too few cores are free, if the system ties no thread to
    processors, or if other users can write to the folder, who could put links in it: then all are shared.
    """
    folder = folder or temporary_folder("outrider-cores")
    folder.mkdir(mode=0o700, exist_ok=True)
    if remedy_to_make_private(folder):
        return []
    cores = cores_of(permitted_processors()).performance
    with FileLock(folder / "claims.lock"):  # so that two processes do not keep half of what both want
        claimed = dict(islice(_free(cores, folder), wanted))
        if len(claimed) < wanted or not tie_to(claimed):
            for lock in claimed.values():
                lock.release()
            return []
    _held.extend(claimed.values())
    return list(claimed)


def _free(cores: list[int], folder: Path) -> Iterator[tuple[int, FileLock]]:
    """The cores that nobody has claimed, with their locks."""
    for core in cores:
        lock = FileLock(folder / f"{core}.lock")
        with contextlib.suppress(Timeout):
            lock.acquire(timeout=0)
            yield core, lock
