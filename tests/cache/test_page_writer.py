"""Pages are written beside the engine, which waits for the disk only when it ends."""

from __future__ import annotations

import os
import threading

import numpy as np
import pytest

from outrider.cache import page_writer
from outrider.cache.disk import PageId
from outrider.cache.page_writer import PageWriter

SIZE = 1000


class SlowStore:
    """Writes once it is let go."""

    def __init__(self):
        self.go, self.written, self.threads = threading.Event(), [], set()

    def put(self, page, note, data):
        self.go.wait()
        self.threads.add(threading.current_thread().name)
        self.written.append((page, note, data.tobytes()))


def page(number):
    return PageId(b"", bytes([number]), 0), b"note", np.full(SIZE, number, np.uint8)


def stored(number):
    of, note, data = page(number)
    return of, note, data.tobytes()


@pytest.fixture
def store():
    return SlowStore()


def test_the_caller_does_not_wait_and_may_reuse_the_memory(store):
    writer = PageWriter(store)
    for number in range(50):
        of, note, data = page(number)
        assert writer.write(of, note, data)
        data[:] = 255
    assert store.written == []
    store.go.set()
    writer.stop()
    assert store.written == [stored(number) for number in range(50)]
    assert store.threads == {"outrider-pages"}


def test_what_the_disk_is_too_slow_for_is_dropped(store, monkeypatch):
    monkeypatch.setattr(page_writer, "_MOST_WAITING_BYTES", 10 * SIZE)
    writer = PageWriter(store)
    assert [writer.write(*page(number)) for number in range(12)] == [True] * 10 + [False] * 2
    store.go.set()
    while len(store.written) < 10:
        pass
    while not writer.write(*page(99)):
        pass
    writer.stop()
    assert store.written == [stored(number) for number in [*range(10), 99]]


def test_after_the_end_it_writes_at_once(store):
    store.go.set()
    writer = PageWriter(store)
    writer.stop()
    writer.stop()
    assert writer.write(*page(1))
    assert store.written == [stored(1)]
    assert store.threads == {threading.current_thread().name}


def test_a_forked_child_writes_nothing_and_does_not_hang(store):
    writer = PageWriter(store)
    writer.write(*page(1))
    child = os.fork()
    if child == 0:
        code = 1
        try:
            writer.stop()
            code = int(writer.write(*page(2)) or bool(store.written))
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    store.go.set()
    writer.stop()
    assert store.written == [stored(1)]
