"""Pages of keys and values in the files of a private folder, which outlive the process."""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import re
import stat
import struct
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from outrider.arrays import Bytes
from outrider.atomic_file import replacing
from outrider.errors import UsageError
from outrider.machine import size
from outrider.system import open_regular, remedy_to_make_private

_log = logging.getLogger("outrider.cache")

MOST_BYTES = 10 << 30
"""The default limit of a folder."""
_MAGIC, _VERSION = b"outrider", 1
_FACTS = struct.Struct("<8s4I32s32s")
"""Magic, version, group, bytes of the note and of the page, identity, key."""
_HEADER_BYTES = _FACTS.size + hashlib.sha256().digest_size
"""The facts, then the SHA-256 of facts, note and page. A file has header, note and page."""
_MOST_NOTE_BYTES = 1 << 16
_NAME = re.compile(r"([0-9a-f]{32})-([0-9a-f]{32})\.[0-9]+\.page")
_PARTIAL = re.compile(_NAME.pattern + r"\.[0-9a-f]+\.partial")
_ABANDONED_SECONDS = 3600
"""A partial file of this age belongs to a process that was killed."""
_STEPS = 16
"""The folder is looked through whenever a process has written this part of the limit, which a single process therefore
never exceeds; others may each exceed it by one part."""


class PageId(NamedTuple):
    """A page: its key and that of the page before it, 32 bytes each, and its group."""

    parent: bytes
    key: bytes
    group: int


class StoredPage(NamedTuple):
    """`data` is (page_bytes[group],) uint8."""

    note: bytes
    data: Bytes


class PageStore:
    """Pages, each with a note, least recently put out first. Threads and processes may share a folder.

    Nothing in a file is trusted: one that is damaged, truncated or another's is removed, with a line in the log.

    Args:
        folder: made if there is none, for this user alone. Whoever can write to it could change answers.
        identity: 32 bytes; what pages depend on besides their keys, see `cache.identity`.
        page_bytes: size of a page, by group.
        most_bytes: of all files.

    Raises:
        UsageError: the folder cannot be used, or others can write to it; or the limit is too low for its pages.
    """

    def __init__(
        self, folder: Path, identity: bytes, page_bytes: Sequence[int], *, most_bytes: int = MOST_BYTES
    ) -> None:
        self.folder, self._most_bytes = folder, most_bytes
        self._identity, self._page_bytes = identity, tuple(page_bytes)
        self._children: dict[str, dict[str, None]] = {}  # by name of the parent, oldest first
        self._since_trim = 0
        self._failing = False
        least = (max(page_bytes) + _HEADER_BYTES + _MOST_NOTE_BYTES) * _STEPS
        if most_bytes < least:
            problem = f"the prefix cache on disk needs {size(least)} for this model, not {size(most_bytes)}"
            raise UsageError(f"{problem}: raise its limit")
        _open_private(folder)
        self._trim()

    def get(self, page: PageId) -> StoredPage | None:
        """A page; None if there is none. Does not count as use: `put` does, when the page leaves memory again."""
        path = self._path(page)
        found = self._read(path, self._page_bytes[page.group])
        if found is None:
            return None
        content, note_bytes = found
        header, end = content[:_HEADER_BYTES].tobytes(), _HEADER_BYTES + note_bytes
        if header == self._header(page, content[_HEADER_BYTES:end], content[end:]):
            return StoredPage(content[_HEADER_BYTES:end].tobytes(), content[end:])
        self._refuse(path)
        return None

    def notes(self, parent: bytes, group: int, most: int) -> Iterator[bytes]:
        """The notes of pages of a group that follow `parent`, the newest `most` of them. They are not checked."""
        name = self._name(parent)
        for own in list(reversed(self._children.get(name, ())))[:most]:
            found = self._read(self.folder / f"{name}-{own}.{group}.page", self._page_bytes[group], only_note=True)
            if found is not None:
                yield found[0][_HEADER_BYTES:].tobytes()

    def put(self, page: PageId, note: bytes, data: Bytes) -> None:
        """Keeps a page, or counts one that is there as used now. What cannot be written is logged, once until something
        can.

        Args:
            data: (page_bytes[group],) uint8.

        Raises:
            ValueError: the data have another size, or the note is too long (a bug of the caller, not of the input).
        """
        if data.nbytes != self._page_bytes[page.group] or len(note) > _MOST_NOTE_BYTES:
            raise ValueError(f"no page of group {page.group}: {data.nbytes} bytes, with a note of {len(note)}")
        path, written = self._path(page), _HEADER_BYTES + len(note) + data.nbytes
        if self._since_trim + written > self._most_bytes // _STEPS:
            self._trim()
        try:
            if _size_of(path) == written:
                _set_time(path)
            else:
                self._write(path, page, np.frombuffer(note, np.uint8), data.reshape(-1))
                self._since_trim += written
        except OSError as error:
            if not self._failing:
                _log.error("pages cannot be written to %s (%s)", self.folder, error.strerror or error)
            self._failing = True
        else:
            self._failing = False
            self._children.setdefault(self._name(page.parent), {})[self._name(page.key)] = None

    def _write(self, path: Path, page: PageId, note: Bytes, data: Bytes) -> None:
        header = np.frombuffer(self._header(page, note, data), np.uint8)
        with replacing(path) as partial:
            partial.touch(mode=0o600, exist_ok=False)
            partial.write_bytes(np.concatenate([header, note, data]).data)
            _set_time(partial)

    def _header(self, page: PageId, note: Bytes, data: Bytes) -> bytes:
        facts = _FACTS.pack(_MAGIC, _VERSION, page.group, note.nbytes, data.nbytes, self._identity, page.key)
        digest = hashlib.sha256(facts)
        digest.update(note.data)
        digest.update(data.data)
        return facts + digest.digest()

    def _read(self, path: Path, page_bytes: int, *, only_note: bool = False) -> tuple[Bytes, int] | None:
        """A file's content, or that before its page, and the bytes of its note; None if it is not there or no page."""
        try:
            found = _content(path, page_bytes, only_note=only_note)
        except FileNotFoundError:
            return None
        except OSError as error:
            _log.warning("%s cannot be read (%s): its positions are computed", path, error.strerror)
            return None
        if found is None:
            self._refuse(path)
        return found

    def _refuse(self, path: Path) -> None:
        _log.warning("%s is no page of this cache, or damaged: it is removed", path)
        _remove(path)

    def _path(self, page: PageId) -> Path:
        return self.folder / f"{self._name(page.parent)}-{self._name(page.key)}.{page.group}.page"

    def _name(self, key: bytes) -> str:
        # Models that share a folder have the same keys for the same text.
        return hashlib.sha256(b"".join((_MAGIC, bytes([_VERSION]), self._identity, key))).hexdigest()[:32]

    def _trim(self) -> None:
        """Removes the least recently used pages beyond the limit, less what may be written until the next time."""
        self._since_trim = 0
        children: dict[str, dict[str, None]] = defaultdict(dict)
        try:
            found = _files(self.folder)
        except OSError as error:
            _log.error("the folder %s cannot be read (%s)", self.folder, error.strerror)
            return
        excess = sum(of_file for _, of_file, _ in found) - self._most_bytes // _STEPS * (_STEPS - 1)
        for _, of_file, path in sorted(found):
            if excess > 0:
                _remove(path)
                excess -= of_file
            elif (name := _NAME.fullmatch(path.name)) is not None:
                children[name[1]][name[2]] = None
        self._children = dict(children)


def _open_private(folder: Path) -> None:
    """Makes the folder if there is none. Raises UsageError."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        remedy = remedy_to_make_private(folder)
    except OSError as error:
        problem = f"the prefix cache's folder {folder} cannot be used ({error.strerror})"
        raise UsageError(f"{problem}: check its path and permissions") from error
    if remedy is not None:
        raise UsageError(
            f"other users can write to the prefix cache's folder {folder}, and so change answers: {remedy}"
        )
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        raise UsageError(f"the prefix cache's folder {folder} cannot be written to: check its permissions")


def _content(path: Path, page_bytes: int, *, only_note: bool) -> tuple[Bytes, int] | None:
    """See `PageStore._read`. Raises OSError."""
    try:
        file = open_regular(path)
    except OSError as error:
        if error.errno == errno.ELOOP:
            return None
        raise
    try:
        about = os.fstat(file)
        before_page = about.st_size - page_bytes
        if not stat.S_ISREG(about.st_mode) or not 0 <= before_page - _HEADER_BYTES <= _MOST_NOTE_BYTES:
            return None
        content = np.empty(before_page if only_note else about.st_size, np.uint8)
        with os.fdopen(file, "rb", buffering=0, closefd=False) as reader:
            whole = reader.readinto(content.data) == len(content)
        return (content, before_page - _HEADER_BYTES) if whole else None
    finally:
        os.close(file)


def _set_time(path: Path) -> None:
    """Sets the time of last use. The system's own stamps are some milliseconds coarse: files of one tick would have no
    order. Raises OSError."""
    now = time.time_ns()
    os.utime(path, ns=(now, now))


def _size_of(path: Path) -> int | None:
    """A regular file's size; None if there is none. Raises OSError."""
    try:
        about = path.lstat()
    except FileNotFoundError:
        return None
    return about.st_size if stat.S_ISREG(about.st_mode) else None


def _files(folder: Path) -> list[tuple[int, int, Path]]:
    """(time of last use in ns, size, path) of every page; removes what killed processes left. Raises OSError."""
    found = []
    with os.scandir(folder) as entries:
        for entry in entries:
            path = Path(entry.path)
            try:
                about = entry.stat(follow_symlinks=False)
            except OSError:
                continue  # removed meanwhile
            if _NAME.fullmatch(entry.name):
                found.append((about.st_mtime_ns, about.st_size, path))
            elif _PARTIAL.fullmatch(entry.name) and time.time() - about.st_mtime > _ABANDONED_SECONDS:
                _remove(path)
    return found


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        _log.warning("%s cannot be removed (%s)", path, error.strerror)
