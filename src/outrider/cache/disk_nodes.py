"""Nodes of the prefix tree in the files of a folder: see `tree.Store`."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable

from outrider.arrays import Bytes
from outrider.backends import cpu
from outrider.cache.disk import PageId, PageStore
from outrider.cache.node import Node, child_key
from outrider.cache.page_writer import PageWriter
from outrider.cache.rows import Row, common
from outrider.cache.states import AnyPage, StatePages
from outrider.cache.tree import Part

_log = logging.getLogger("outrider.cache")

_MOST_COMPARED = 16
"""Pages whose rows are compared where none has all those of a prompt."""
_LEAST_COMMON = 16
"""Fewer rows than this are computed sooner than a page is read."""


class DiskNodes:
    """Keeps the pages of a node apart, one file for each group of layers and each kind of drafter that keeps something,
    with the node's rows as their note.

    Args:
        budget: bytes of all pages in memory, beyond which none is read.
    """

    def __init__(self, store: PageStore, pages: cpu.KvPages, states: StatePages, budget: int) -> None:
        self._store, self._pages, self._states, self._budget = store, pages, states, budget
        self._writer = PageWriter(store)
        self._full = pages.windows.index(0) if 0 in pages.windows else 0
        """The group whose page every node has."""
        self._layers = len(pages.windows)
        self._node_bytes = sum(map(pages.page_bytes, range(self._layers))) + sum(states.page_bytes)

    def keep(self, node: Node[AnyPage]) -> None:
        """Writes the node's pages, by a thread of its own. Where the disk is too slow for that, they are lost."""
        assert node.parent is not None
        note = encoded(node.rows)
        for group, page in enumerate(node.pages):
            of_group = PageId(node.parent.key, node.key, group)
            if page is not None and not self._writer.write(of_group, note, page.data):
                _log.debug("a page is not written, as too many wait for the disk")

    def find(self, parent: bytes, rows: tuple[Row, ...]) -> Part[AnyPage] | None:
        """Of the pages below `parent`, the one with the most rows in common with `rows`."""
        if self._pages.bytes_in_use + self._states.bytes_in_use + self._node_bytes > self._budget:
            return None
        if len(rows) == cpu.PAGE_POSITIONS and (found := self._load(parent, rows)) is not None:
            return found
        notes = self._store.notes(parent, self._full, _MOST_COMPARED)
        others = [of_page for note in notes if (of_page := decoded(note)) is not None]
        best = max(others, key=lambda of_page: common(of_page, rows), default=())
        return self._load(parent, best) if common(best, rows) >= _LEAST_COMMON else None

    def _load(self, parent: bytes, rows: tuple[Row, ...]) -> Part[AnyPage] | None:
        key, pages = child_key(parent, rows), list[AnyPage | None]()
        for group in range(self._layers + len(self._states.kinds)):
            found = self._store.get(PageId(parent, key, group))
            if found is None and group == self._full:
                return None
            pages.append(None if found is None else self._page(group, found.data))
        return Part(rows, pages)

    def _page(self, group: int, data: Bytes) -> AnyPage:
        if group < self._layers:
            return self._pages.load(group, data)
        return self._states.page(group - self._layers, data.copy())  # not a view of the file's header, nor unaligned

    def finish(self, nodes: Iterable[Node[AnyPage]]) -> None:
        """Writes what waits, and then all of these nodes, however long that takes."""
        self._writer.stop()
        for node in nodes:
            self.keep(node)


def encoded(rows: tuple[Row, ...]) -> bytes:
    """Rows as JSON."""
    return json.dumps([row if isinstance(row, int) else [row[0], row[1].hex(), *row[2:]] for row in rows]).encode()


def decoded(note: bytes) -> tuple[Row, ...] | None:
    """What `encoded` made; None for anything else. A page is only loaded by the key that follows from its rows."""
    try:
        rows = json.loads(note)
        return tuple(row if isinstance(row, int) else (row[0], bytes.fromhex(row[1]), row[2], row[3]) for row in rows)
    except (ValueError, TypeError, LookupError, RecursionError):
        return None
