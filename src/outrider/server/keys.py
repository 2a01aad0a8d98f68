"""API keys. Clients of different keys share no cache."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from pathlib import Path

from outrider.errors import UsageError


class ApiKeys:
    """The accepted keys; without any, no key is needed.

    Raises:
        UsageError: a key is empty or has whitespace, which no bearer token can have.
    """

    def __init__(self, keys: Iterable[str] = ()) -> None:
        distinct = list(dict.fromkeys(keys))
        if any(not key or any(map(str.isspace, key)) for key in distinct):
            raise UsageError("an API key is empty or has whitespace in it: use letters, digits and punctuation")
        self._keys = [key.encode() for key in distinct]

    def __bool__(self) -> bool:
        return bool(self._keys)

    def index(self, given: bytes) -> int | None:
        """The number of a key; None if it is not accepted. Compares all, each in constant time, so that the time taken
        reveals nothing."""
        found = None
        for index, key in enumerate(self._keys):
            if hmac.compare_digest(given, key):
                found = index
        return found

    def scope(self, key: int | None, cache_salt: str) -> bytes:
        """A digest of a key and a salt, distinct for each pair, which stays the same when the list of keys changes."""
        own = b"" if key is None else self._keys[key]
        parts = (own, cache_salt.encode("utf-8", "surrogatepass"))
        return b"".join(hashlib.sha256(bytes([key is not None]) + part).digest() for part in parts)


def read_keys(api_key: str | None, file: Path | None) -> ApiKeys:
    """The keys of `--api-key` and `--api-key-file`: one a line, but for blank lines and those that begin with #.

    Raises:
        UsageError: the file cannot be read or has no key, or a key cannot be one.
    """
    keys = [] if api_key is None else [api_key]
    if file is not None:
        try:
            lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
        except OSError as error:
            raise UsageError(f"--api-key-file {file} cannot be read ({error.strerror}): check its path") from error
        except UnicodeDecodeError as error:
            raise UsageError(f"--api-key-file {file} is not UTF-8 text: write one key a line") from error
        found = [line for line in lines if line and not line.startswith("#")]
        if not found:
            raise UsageError(f"--api-key-file {file} has no key: write one a line")
        wrong = next((number for number, line in enumerate(lines, 1) if line in found and len(line.split()) > 1), None)
        if wrong is not None:
            raise UsageError(f"--api-key-file {file}, line {wrong}: a key must not have whitespace: write one a line")
        keys += found
    return ApiKeys(keys)
