"""A cache of merges on disk.

A file holds the SHA-256 digest of what follows, and the pairs, (merges, 2) little-endian int32. Its name is a hash of
the tables that the merges come from, so no other vocabulary finds it. A damaged or unreadable file is ignored, and the
merges are computed again.
"""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path

import numpy as np

from outrider.arrays import Ints
from outrider.atomic_file import replacing
from outrider.checkpoints.tokenizer_tables import TokenizerTables
from outrider.user_cache import user_cache

_FORMAT = b"merges 3"  # change it with the file's layout, and with the choice or the order of the merges
_DIGEST_BYTES = 32


def file_for(tables: TokenizerTables) -> Path | None:
    """The file for the merges of these tables; None without a cache folder."""
    folder = user_cache("tokenizers")
    return None if folder is None else folder / f"{digest_of(tables).hex()[:32]}.merges"


def digest_of(tables: TokenizerTables) -> bytes:
    """Tells tables apart. Takes 20 ms for Gemma."""
    digest = hashlib.sha256(_FORMAT)
    for texts in [tables.model], tables.tokens, tables.merges or []:
        digest.update("\0".join([*texts, ""]).encode("utf-8", "surrogatepass") + b"\0")
    for column in tables.scores, tables.token_types:
        digest.update(b"\0" if column is None else np.ascontiguousarray(column).tobytes())
    return digest.digest()


def read(file: Path | None, vocab_size: int) -> Ints | None:
    """The (merges, 2) pairs in a file; None if it is missing, damaged, or has ids outside the vocabulary."""
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


def write(file: Path | None, pairs: Ints) -> None:
    """Write the merges atomically, also with several writers; a file that cannot be written is no error."""
    if file is None:
        return
    payload = pairs.astype("<i4").tobytes()
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file) as partial:
            partial.touch(mode=0o600)
            partial.write_bytes(hashlib.sha256(payload).digest() + payload)
