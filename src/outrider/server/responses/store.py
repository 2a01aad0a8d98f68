"""Responses that are kept, to be read and continued.

Each belongs to an API key and a cache salt. Its entry is named by a digest of both and of its id, which cannot be
guessed: whoever has another key or salt finds nothing, as if the response had never been.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from outrider.atomic_file import replacing
from outrider.errors import UsageError
from outrider.server.responses.items import REFERENCE, Item
from outrider.server.responses.shapes import as_json, response_of

_log = logging.getLogger("outrider.server")
MAX_RESPONSES = 10_000
MAX_MEMORY_BYTES, MAX_FOLDER_BYTES = 64 << 20, 1 << 30
MAX_CONVERSATION_BYTES = 16 << 20
_NAME = re.compile(r"[0-9a-f]{64}\.json")
_PARTIAL = re.compile(_NAME.pattern + r"\.[0-9a-f]+\.partial")


class NotStoredError(Exception):
    """There is no response, or item, with this id."""


class TooLargeError(Exception):
    """A conversation cannot be read in a time that one request may take."""


@dataclass(frozen=True)
class Stored:
    """A response, the items of its own input, and the response that it continues."""

    response: dict[str, Any]
    input: list[Item]
    previous: str | None

    @property
    def items(self) -> list[Item]:
        """Its input and output."""
        output: list[Item] = self.response["output"]
        return self.input + output


class ResponseStore:
    """At most `most` responses and `most_bytes` bytes; the least recently used leave first. Threads may share it.

    Args:
        folder: keeps them in files, for the next start; None keeps them in memory.

    Raises:
        UsageError: the folder cannot be used.
    """

    def __init__(self, folder: Path | None = None, *, most: int = MAX_RESPONSES, most_bytes: int | None = None) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        self._entries = _Memory() if folder is None else _Folder(folder)
        self._most = most
        self._most_bytes = most_bytes or (MAX_MEMORY_BYTES if folder is None else MAX_FOLDER_BYTES)
        self._sizes: OrderedDict[str, int] = OrderedDict(self._entries.sizes())
        self._bytes = sum(self._sizes.values())
        self._make_room(0)

    def put(self, scope: bytes, stored: Stored) -> None:
        """Keeps a response, once, for its scope; see `ApiKeys.scope`. What cannot be written is logged."""
        try:
            content = as_json(vars(stored)).encode()
        except RecursionError:
            _log.warning("a response that nests too deeply is not stored")
            return
        name = _name(scope, stored.response["id"])
        with self._lock:
            if len(content) > self._most_bytes:
                _log.warning("a response of %d bytes is too large to be stored", len(content))
                return
            self._make_room(len(content))
            try:
                self._entries.write(name, content)
            except OSError as error:
                _log.error("a response cannot be stored: %s", error)
                return
            self._sizes[name] = len(content)
            self._bytes += len(content)

    def get(self, scope: bytes, response: str) -> Stored:
        """A response of this scope. Raises NotStoredError."""
        name = _name(scope, response)
        with self._lock:
            if name not in self._sizes:
                raise NotStoredError(response)
            self._sizes.move_to_end(name)
            content = self._entries.read(name)
        try:
            return Stored(**json.loads(content))
        except (ValueError, TypeError) as error:
            _log.warning("the stored response %s.json is damaged (%s): it is not used", name, error)
            raise NotStoredError(response) from error

    def delete(self, scope: bytes, response: str) -> None:
        """Removes a response. Raises NotStoredError."""
        name = _name(scope, response)
        with self._lock:
            if name not in self._sizes:
                raise NotStoredError(response)
            self._remove(name)

    def conversation(self, scope: bytes, last: str | None) -> list[Item]:
        """The input and output of a response and of those that it continues, oldest first.

        Raises:
            NotStoredError: one of them is not stored.
            TooLargeError: together they have more than MAX_CONVERSATION_BYTES.
        """
        turns: list[list[Item]] = []
        size = 0
        while last is not None:
            stored = self.get(scope, last)
            turns.append(stored.items)
            size += self._sizes.get(_name(scope, last), 0)
            if size > MAX_CONVERSATION_BYTES:
                raise TooLargeError
            last = stored.previous
        return [item for turn in reversed(turns) for item in turn]

    def resolved(self, scope: bytes, items: Sequence[Item]) -> list[Item]:
        """The items, each reference replaced by what it names. Raises NotStoredError."""
        return [self._item(scope, str(item.get("id"))) if item.get("type") == REFERENCE else item for item in items]

    def _item(self, scope: bytes, wanted: str) -> Item:
        response = response_of(wanted)
        if response is None:
            raise NotStoredError(wanted)
        found = [item for item in self.get(scope, response).items if item.get("id") == wanted]
        if not found:
            raise NotStoredError(wanted)
        return found[0]

    def _make_room(self, size: int) -> None:
        while self._sizes and (len(self._sizes) >= self._most or self._bytes + size > self._most_bytes):
            self._remove(next(iter(self._sizes)))

    def _remove(self, name: str) -> None:
        self._bytes -= self._sizes.pop(name)
        self._entries.remove(name)


class _Memory:
    """Entries in memory."""

    def __init__(self) -> None:
        self._contents: dict[str, bytes] = {}

    def sizes(self) -> list[tuple[str, int]]:
        """Names and bytes, least recently used first."""
        return []

    def write(self, name: str, content: bytes) -> None:
        """Keeps an entry."""
        self._contents[name] = content

    def read(self, name: str) -> bytes:
        """An entry."""
        return self._contents[name]

    def remove(self, name: str) -> None:
        """Drops an entry."""
        del self._contents[name]


class _Folder(_Memory):
    """Entries as files that only the server's user can read; a file's time is that of its last use."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            for left in folder.iterdir():
                if _PARTIAL.fullmatch(left.name):
                    left.unlink()
        except OSError as error:
            raise UsageError(f"--response-store {folder} cannot be used ({error.strerror}): check its path") from error
        if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
            raise UsageError(f"--response-store {folder} cannot be written to: check its permissions")

    def sizes(self) -> list[tuple[str, int]]:
        found = [(path, path.stat()) for path in self._folder.iterdir() if _NAME.fullmatch(path.name)]
        found.sort(key=lambda pair: pair[1].st_mtime_ns)
        return [(path.stem, about.st_size) for path, about in found]

    def write(self, name: str, content: bytes) -> None:
        with replacing(self._path(name)) as partial:
            partial.touch(mode=0o600)
            partial.write_bytes(content)

    def read(self, name: str) -> bytes:
        path = self._path(name)
        try:
            os.utime(path)
            return path.read_bytes()
        except OSError as error:
            _log.warning("the stored response %s cannot be read (%s)", path.name, error.strerror)
            return b""

    def remove(self, name: str) -> None:
        self._path(name).unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.json"


def _name(scope: bytes, response: str) -> str:
    return hashlib.sha256(scope + response.encode("utf-8", "surrogatepass")).hexdigest()
