"""Writes pages to a folder beside the engine, which does not wait for the disk."""

from __future__ import annotations

import os
import threading
from queue import SimpleQueue
from typing import NamedTuple

from outrider.arrays import Bytes
from outrider.cache.disk import PageId, PageStore

_MOST_WAITING_BYTES = 1 << 27


class _Job(NamedTuple):
    page: PageId
    note: bytes
    data: Bytes


class PageWriter:
    """A thread that puts pages into a store. In a forked child there is none, and nothing is written."""

    def __init__(self, store: PageStore) -> None:
        self._store = store
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._given = self._written = 0  # bytes; each is changed by one thread alone
        self._process = os.getpid()
        self._thread = threading.Thread(target=self._run, name="outrider-pages", daemon=True)
        self._thread.start()

    def write(self, page: PageId, note: bytes, data: Bytes) -> bool:
        """Copies a page, to be written soon; once the thread has ended, writes it at once.

        False, and nothing happens, if too many wait already.
        """
        if self._process != os.getpid():
            return False
        if not self._thread.is_alive():
            self._store.put(page, note, data)
            return True
        if self._given - self._written + data.nbytes > _MOST_WAITING_BYTES:
            return False
        self._given += data.nbytes
        self._jobs.put(_Job(page, note, data.copy()))
        return True

    def stop(self) -> None:
        """Writes what waits, and ends the thread."""
        if self._process == os.getpid() and self._thread.is_alive():
            self._jobs.put(None)
            self._thread.join()

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            self._store.put(*job)
            self._written += job.data.nbytes
