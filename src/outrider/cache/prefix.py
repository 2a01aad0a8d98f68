"""The prefix cache: keys and values of finished sequences, reused by prompts with the same prefix."""

from __future__ import annotations

from collections.abc import Hashable
from collections.abc import Sequence as Tokens
from dataclasses import dataclass
from itertools import zip_longest
from typing import NamedTuple

from outrider.backends import cpu

_MOST_KEPT = 256
"""Most finished sequences, whatever their bytes: every new prompt is compared with each."""


class MediumRows(NamedTuple):
    """Rows of one medium: the cache key of row `first + i` is its token and (digest, i); see `engine.media`."""

    first: int
    rows: int
    digest: bytes


@dataclass(eq=False)
class Sequence:
    """A cache and the tokens whose keys and values it holds: `tokens[:cache.length]` are in it.

    `media` are the rows that carry embeddings, ascending. `salt` keeps sequences apart: one is reused for requests of
    the same salt only.
    """

    cache: cpu.KvCache
    tokens: list[int]
    salt: Hashable = ""
    media: tuple[MediumRows, ...] = ()


class CachePool:
    """Caches of running sequences, and those kept of finished ones.

    Args:
        shapes: the model's cache layers.
        max_positions: longest sequence, rows of a pass included.
        max_rows: most rows of one pass.
        kv_format: format of keys and values.
        kept_bytes: memory of finished sequences; 0 for none.
    """

    def __init__(
        self,
        shapes: list[cpu.KvShape],
        max_positions: int,
        max_rows: int,
        *,
        kv_format: cpu.KvFormat,
        kept_bytes: int = 0,
    ) -> None:
        self._pages, self._max_positions, self._max_rows = cpu.KvPages(shapes, kv_format), max_positions, max_rows
        self._finished: list[Sequence] = []  # least recently used first
        self.most_bytes, self.kept_bytes = kept_bytes, 0  # limit and present memory of finished sequences
        self.in_use = 0  # sequences that are open

    @property
    def kept(self) -> int:
        """Number of finished sequences."""
        return len(self._finished)

    def open(
        self, tokens: list[int], *, reuse: bool = True, salt: Hashable = "", media: tuple[MediumRows, ...] = ()
    ) -> Sequence:
        """A sequence for `tokens`, with the longest prefix of them that a finished sequence of the same salt holds.

        A reused sequence is truncated to that prefix, so it is reused only if it keeps at least half of its length. The
        last token is always computed, since its hidden state is not kept. A prefix does not end within a medium, whose
        rows may attend to each other in both directions. Reused or computed, the bits are the same (rows do not see
        each other). Without `reuse` the sequence is empty.
        """
        best, shared = None, 0
        for sequence in [s for s in self._finished if s.salt == salt] if reuse else ():
            length = sequence.cache.length
            common = min(_common(sequence, tokens, media), length, len(tokens) - 1)
            common = next((m.first for m in media if m.first < common < m.first + m.rows), common)
            if common > shared and common >= length - common:
                best, shared = sequence, common
        if best is None:
            best = Sequence(self.new(), [])
        else:
            self._finished.remove(best)
            self.kept_bytes -= self.bytes_of(best)
            best.cache.truncate(shared)
        self.in_use += 1
        return Sequence(best.cache, tokens, salt, media)

    def close(self, sequence: Sequence, *, keep: bool = True) -> None:
        """Keeps a finished sequence, evicting the least recently used ones; drops it without `keep`."""
        self.in_use -= 1
        if keep and sequence.cache.length:
            self._drop_equal(sequence)
            self._finished.append(sequence)
            self.kept_bytes += self.bytes_of(sequence)
        while self._finished and (len(self._finished) > _MOST_KEPT or self.kept_bytes > self.most_bytes):
            self.kept_bytes -= self.bytes_of(self._finished.pop(0))

    def _drop_equal(self, sequence: Sequence) -> None:
        """Drops a finished sequence with the same rows, as after a short prompt that is sent repeatedly."""
        for kept in [s for s in self._finished if s.salt == sequence.salt]:
            length = sequence.cache.length
            if kept.cache.length == length <= _common(kept, sequence.tokens, sequence.media):
                self._finished.remove(kept)
                self.kept_bytes -= self.bytes_of(kept)
                return

    def clear(self) -> None:
        """Drops all finished sequences."""
        self._finished.clear()
        self.kept_bytes = 0

    def new(self) -> cpu.KvCache:
        """An empty cache."""
        return cpu.KvCache(self._pages, self._max_positions, self._max_rows)

    def bytes_of(self, sequence: Sequence) -> int:
        """Bytes of a sequence's pages."""
        groups = range(len(self._pages.windows))
        return -(-sequence.cache.length // cpu.PAGE_POSITIONS) * sum(map(self._pages.page_bytes, groups))


def _common(kept: Sequence, tokens: Tokens[int], media: Tokens[MediumRows]) -> int:
    """Length of the longest common prefix: rows with equal tokens and, where they carry embeddings, equal keys."""
    pairs = enumerate(zip(kept.tokens, tokens, strict=False))
    length = next((at for at, (x, y) in pairs if x != y), min(len(kept.tokens), len(tokens)))
    for own, other in zip_longest(kept.media, media):
        if own != other:
            return min(length, *(one.first for one in (own, other) if one is not None))
    return length
