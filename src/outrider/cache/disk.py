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
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from outrider.arrays import Bytes
from outrider.atomic_file import replacing
from outrider.errors import UsageError
from outrider.machine import size

_log = logging.getLogger("outrider.cache")

_MAGIC, _VERSION = b"outrider", 1
_FACTS = struct.Struct("<8sIIQ32s32s")
"""Magic, version, group, bytes of the page, identity, key."""
_HEADER_BYTES = 128
"""The facts, padded to 96 bytes, and the SHA-256 of these and the page."""
_NAME = re.compile(r"[0-9a-f]{64}\.page")
_PARTIAL = re.compile(_NAME.pattern + r"\.[0-9a-f]+\.partial")
_ABANDONED_SECONDS = 3600
"""A partial file of this age belongs to a process that was killed."""
_STEPS = 16
"""The folder is looked through whenever a process has written this part of the limit, which a single process therefore
never exceeds; others may each exceed it by one part."""


class PageStore:
    """Pages by key and group, least recently used out first. Threads and processes may share a folder.

    Nothing in a file is trusted: one that is damaged, truncated or another's is removed, with a line in the log.

    Args:
        folder: made if there is none, for this user alone. Whoever can write to it could change answers.
        most_bytes: of all files.
        identity: 32 bytes; what pages depend on besides their keys, see `cache.identity`.
        page_bytes: size of a page, by group.

    Raises:
        UsageError: the folder cannot be used, or others can write to it; or the limit is too low for its pages.
    """

    def __init__(self, folder: Path, most_bytes: int, identity: bytes, page_bytes: Sequence[int]) -> None:
        self.folder, self._most_bytes = folder, most_bytes
        self._identity, self._page_bytes = identity, tuple(page_bytes)
        self._since_trim = 0
        self._failing = False
        least = (max(page_bytes) + _HEADER_BYTES) * _STEPS
        if most_bytes < least:
            raise UsageError(f"the prefix cache on disk needs {size(least)} for this model, not {size(most_bytes)}")
        _open_private(folder)
        self._trim()

    def get(self, key: bytes, group: int) -> Bytes | None:
        """A page, (page_bytes[group],) uint8; None if there is none. Does not count as use: see `touch`.

        Args:
            key: 32 bytes.
        """
        path = self._path(key, group)
        try:
            content = _read(path, _HEADER_BYTES + self._page_bytes[group])
        except FileNotFoundError:
            return None
        except OSError as error:
            _log.warning("%s cannot be read (%s): its positions are computed", path, error.strerror)
            return None
        if content is not None and content[:_HEADER_BYTES].tobytes() == self._header(key, group, content):
            return content[_HEADER_BYTES:]
        _log.warning("%s is no page of this cache, or damaged: it is removed", path)
        _remove(path)
        return None

    def put(self, key: bytes, group: int, data: Bytes) -> None:
        """Keeps a page. What cannot be written is logged, once until something can.

        Args:
            data: (page_bytes[group],) uint8.

        Raises:
            ValueError: it has another size (a bug of the caller, not of the input).
        """
        if data.nbytes != self._page_bytes[group]:
            raise ValueError(f"a page of group {group} has {self._page_bytes[group]} bytes, not {data.nbytes}")
        path, written = self._path(key, group), _HEADER_BYTES + data.nbytes
        if self._since_trim + written > self._most_bytes // _STEPS:
            self._trim()
        try:
            if _size_of(path) != written:
                self._write(path, key, group, data)
                self._since_trim += written
        except OSError as error:
            if not self._failing:
                _log.error("pages cannot be written to %s (%s)", self.folder, error.strerror or error)
            self._failing = True
        else:
            self._failing = False

    def touch(self, pages: Sequence[tuple[bytes, int]]) -> None:
        """Counts pages, by key and group, as used now, the last first: a page is of no use without those before it."""
        now = time.time_ns()
        for age, (key, group) in enumerate(pages):
            try:
                _set_time(self._path(key, group), now - age)
            except OSError:
                continue  # removed meanwhile

    def _write(self, path: Path, key: bytes, group: int, data: Bytes) -> None:
        content = np.empty(_HEADER_BYTES + data.nbytes, np.uint8)
        content[_HEADER_BYTES:] = data.reshape(-1)
        content[:_HEADER_BYTES] = np.frombuffer(self._header(key, group, content), np.uint8)
        with replacing(path) as partial:
            partial.touch(mode=0o600, exist_ok=False)
            partial.write_bytes(content.data)
            _set_time(partial, time.time_ns())

    def _header(self, key: bytes, group: int, content: Bytes) -> bytes:
        """The header that belongs before the page in `content`."""
        page = content[_HEADER_BYTES:]
        facts = self._facts(key, group)
        facts = facts.ljust(_HEADER_BYTES - hashlib.sha256().digest_size, b"\0")
        digest = hashlib.sha256(facts)
        digest.update(page.data)
        return facts + digest.digest()

    def _facts(self, key: bytes, group: int) -> bytes:
        return _FACTS.pack(_MAGIC, _VERSION, group, self._page_bytes[group], self._identity, key)

    def _path(self, key: bytes, group: int) -> Path:
        # Models that share a folder have the same keys for the same text.
        name = hashlib.sha256(self._facts(key, group))
        return self.folder / f"{name.hexdigest()}.page"

    def _trim(self) -> None:
        """Removes the least recently used pages beyond the limit, less what may be written until the next time."""
        self._since_trim = 0
        try:
            found = _files(self.folder)
        except OSError as error:
            _log.error("the folder %s cannot be read (%s)", self.folder, error.strerror)
            return
        excess = sum(of_file for _, of_file, _ in found) - self._most_bytes // _STEPS * (_STEPS - 1)
        for _, of_file, path in sorted(found):
            if excess <= 0:
                return
            _remove(path)
            excess -= of_file


def _open_private(folder: Path) -> None:
    """Makes the folder if there is none. Raises UsageError."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        about = folder.stat()
    except OSError as error:
        raise UsageError(f"the prefix cache's folder {folder} cannot be used ({error.strerror})") from error
    if about.st_uid != os.geteuid() or about.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        problem = f"other users can write to the prefix cache's folder {folder}, and so change answers"
        raise UsageError(f"{problem}: chmod 700 it, as its owner, or name another")
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        raise UsageError(f"the prefix cache's folder {folder} cannot be written to: check its permissions")


def _read(path: Path, size: int) -> Bytes | None:
    """A file's content in one read; None if it is no regular file of this size. Raises OSError."""
    # Neither follows a link nor waits for the writer of a pipe.
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
    except OSError as error:
        if error.errno == errno.ELOOP:
            return None
        raise
    try:
        about = os.fstat(file)
        if not stat.S_ISREG(about.st_mode) or about.st_size != size:
            return None
        content = np.empty(size, np.uint8)
        return content if os.readv(file, [content.data]) == size else None
    finally:
        os.close(file)


def _set_time(path: Path, nanoseconds: int) -> None:
    """Sets the time of last use: the system's own stamps are some milliseconds coarse, and files of one tick have no
    order. Raises OSError."""
    os.utime(path, ns=(nanoseconds, nanoseconds))


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
