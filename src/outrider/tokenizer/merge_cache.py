"""Merges kept on disk between runs.

A file holds a SHA-256 digest and then the pairs it is of, (merges, 2) little-endian int32. It is named by a hash of the
tables the merges came from, so another vocabulary never finds it, and whatever is wrong with it (damaged, cut short,
unreadable, not writable) only means that the merges are found again.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt

from outrider.checkpoints.tokenizer_tables import TokenizerTables

_FORMAT = b"merges 3"  # to be changed with the order or the choice of the merges, not only with the file's layout
_DIGEST_BYTES = 32


def file_for(tables: TokenizerTables) -> Path | None:
    """Where the merges of these tables are kept; None where no home folder is known. Hashing takes 20 ms for Gemma."""
    digest = hashlib.sha256(_FORMAT)
    for texts in [tables.model], tables.tokens, tables.merges or []:
        digest.update("\0".join([*texts, ""]).encode("utf-8", "surrogatepass") + b"\0")
    for column in tables.scores, tables.token_types:
        digest.update(b"\0" if column is None else np.ascontiguousarray(column).tobytes())
    with contextlib.suppress(RuntimeError):  # what Path.home raises for a user without one
        root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        return root / "outrider" / "tokenizers" / f"{digest.hexdigest()[:32]}.merges"
    return None


def read(file: Path | None, vocab_size: int) -> npt.NDArray[np.int32] | None:
    """The merges in a file, or None if it is not there or not as it was written."""
    try:
        content = b"" if file is None else file.read_bytes()
    except OSError:
        return None
    payload = content[_DIGEST_BYTES:]
    if len(payload) % 8 or hashlib.sha256(payload).digest() != content[:_DIGEST_BYTES]:
        return None
    pairs = np.frombuffer(payload, "<i4").astype(np.int32).reshape(-1, 2)
    within = pairs.size == 0 or (int(pairs.min()) >= 0 and int(pairs.max()) < vocab_size)
    return pairs if within else None


def write(file: Path | None, pairs: npt.NDArray[np.int32]) -> None:
    """Puts the merges into a file that is either complete or not there, also with several processes at it."""
    if file is None:
        return
    payload = pairs.astype("<i4").tobytes()
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=file.parent, suffix=".partial")
        try:
            with os.fdopen(handle, "wb") as partial:
                partial.write(hashlib.sha256(payload).digest() + payload)
            os.replace(temporary, file)  # noqa: PTH105 (the atomic one, by name)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
