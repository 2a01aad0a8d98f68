"""What the bytes of a page depend on besides its tokens, as one hash."""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from outrider.backends import cpu
from outrider.cache.states import StatePages
from outrider.checkpoints.adapters import Adapter
from outrider.checkpoints.checkpoint import Checkpoint

ARITHMETIC = "6ae12be075be3e82"
"""The version of all that computes keys and values: a digest of the answers that every machine must reproduce (see
tests/cache/test_identity.py, which fails when they change and this does not)."""

_SAMPLE_BYTES, _SAMPLE_EVERY = 16, 4096
_WHOLE_BYTES = 1 << 20


def model_identity(
    checkpoint: Checkpoint,
    adapters: Mapping[str, Adapter],
    quantize: str | None,
    pages: cpu.KvPages,
    kv_format: cpu.KvFormat,
    states: StatePages,
    drafters: Iterable[Checkpoint],
) -> bytes:
    """The identity of a loaded model with its adapters, whose names are part of the keys of pages.

    Args:
        drafters: those whose states are among the pages.
    """
    layout = cpu.PAGE_POSITIONS, [(window, pages.page_bytes(group)) for group, window in enumerate(pages.windows)]
    others = {name: identity(files=adapters[name].files).hex() for name in sorted(adapters)}
    kept = states.kinds, states.page_bytes, sorted(identity(files=drafter.files).hex() for drafter in drafters)
    return identity(checkpoint.config, quantize, kv_format, layout, others, kept, files=checkpoint.files)


def identity(*facts: object, files: Iterable[Path]) -> bytes:
    """32 bytes that differ for models whose keys and values may differ.

    Args:
        facts: what else the keys and values depend on, such as the config and the format of the cache.
        files: config and weights, by whatever names.
    """
    total = hashlib.sha256(repr((ARITHMETIC, facts)).encode())
    for digest in sorted(map(content_digest, files)):
        total.update(digest)
    return total.digest()


def content_digest(path: Path) -> bytes:
    """A digest of a file's size and content. Of a large file, 16 bytes of every 4 KiB: training, quantizing and merging
    change weights everywhere, and a whole hash would take seconds at each start."""
    size = path.stat().st_size
    digest = hashlib.sha256(size.to_bytes(8, "little"))
    if size <= _WHOLE_BYTES:
        digest.update(path.read_bytes())
        return digest.digest()
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        whole = np.frombuffer(mapped, np.uint8)
        rows = whole[: size // _SAMPLE_EVERY * _SAMPLE_EVERY].reshape(-1, _SAMPLE_EVERY)
        digest.update(rows[:, :_SAMPLE_BYTES].tobytes())
        digest.update(whole[-_SAMPLE_EVERY:].tobytes())
        del whole, rows  # which keep the mapping open
    return digest.digest()
