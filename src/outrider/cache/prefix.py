"""Caches that outlive their request, so that a prompt that begins as an earlier one did need not be computed again."""

from __future__ import annotations

from collections.abc import Sequence as Tokens
from dataclasses import dataclass
from itertools import zip_longest
from typing import NamedTuple

from outrider.backends import cpu
from outrider.cache.memory import cache_bytes

_MOST_KEPT = 256
"""Finished sequences at most, whatever their bytes: every new prompt is compared with each."""


class MediumRows(NamedTuple):
    """Rows of one medium: row `first + i` has the cache key (digest, i) beside its token; see `engine.media`."""

    first: int
    rows: int
    digest: bytes


@dataclass(eq=False)
class Sequence:
    """A cache and the tokens whose keys and values it holds: `tokens[:cache.length]` are in it.

    `media` are the rows that carry embeddings, ascending. `salt` keeps sequences apart: one is reused for requests of
    the same salt only. `written` is the most positions that the cache ever held: their memory stays taken when it goes
    back.
    """

    cache: cpu.KvCache
    tokens: list[int]
    salt: str = ""
    media: tuple[MediumRows, ...] = ()
    written: int = 0


class CachePool:
    """Hands out caches, and takes back those of finished requests.

    Args:
        shapes: the model's cache layers.
        max_positions: longest sequence, rows in flight included.
        max_rows: most rows of one pass.
        kv_format: how keys and values are kept.
        kept_bytes: memory that finished sequences may keep for their prefix; 0 for none.
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
        self._shapes, self._max_positions, self._max_rows = shapes, max_positions, max_rows
        self._kv_format = kv_format
        self._finished: list[Sequence] = []  # least recently used first
        self.most_bytes = kept_bytes
        """Memory that finished sequences may keep."""
        self.kept_bytes = 0
        """Memory that finished sequences keep."""
        self.in_use = 0
        """Sequences that are open."""

    @property
    def kept(self) -> int:
        """Finished sequences that are kept."""
        return len(self._finished)

    def open(
        self, tokens: list[int], *, reuse: bool = True, salt: str = "", media: tuple[MediumRows, ...] = ()
    ) -> Sequence:
        """A sequence for `tokens`, already holding as long a prefix of them as a finished one can give.

        A finished sequence that is used again loses what does not fit, so it is used only where that saves as much as
        it loses. At least the last token is left to compute, since its hidden state is not kept. Reused or computed
        anew, the bits are the same (rows do not see each other). Without `reuse` it begins empty. A prefix does not end
        within a medium, whose rows may attend to each other in both directions.

        Args:
            salt: only sequences that were opened with the same salt are considered.
        """
        best, shared = None, 0
        for sequence in [s for s in self._finished if s.salt == salt] if reuse else ():
            length = sequence.cache.length
            common = min(_common(sequence, tokens, media), length, len(tokens) - 1)
            common = next((m.first for m in media if m.first < common < m.first + m.rows), common)
            # A sliding layer holds its last positions alone: before `earliest` it has lost what a row would see.
            if common > shared and common >= sequence.cache.earliest and common >= length - common:
                best, shared = sequence, common
        if best is None:
            sequence = Sequence(self.new(), tokens, salt, media)
            self.in_use += 1
            return sequence
        self.in_use += 1
        self._finished.remove(best)
        self.kept_bytes -= self.bytes_of(best)
        best.cache.truncate(shared)
        return Sequence(best.cache, tokens, salt, media, best.written)

    def close(self, sequence: Sequence, *, keep: bool = True) -> None:
        """Takes a finished sequence back; the least recently used ones make room for it. Without `keep` it goes."""
        self.in_use -= 1
        sequence.written = max(sequence.written, sequence.cache.length)
        if keep and sequence.cache.length:
            self._drop_equal(sequence)
            self._finished.append(sequence)
            self.kept_bytes += self.bytes_of(sequence)
        while self._finished and (len(self._finished) > _MOST_KEPT or self.kept_bytes > self.most_bytes):
            self.kept_bytes -= self.bytes_of(self._finished.pop(0))

    def _drop_equal(self, sequence: Sequence) -> None:
        """What a newer one holds as well is not kept twice, as after a short prompt that is asked again and again."""
        for kept in [s for s in self._finished if s.salt == sequence.salt]:
            length = sequence.cache.length
            if kept.cache.length == length <= _common(kept, sequence.tokens, sequence.media):
                self._finished.remove(kept)
                self.kept_bytes -= self.bytes_of(kept)
                return

    def clear(self) -> None:
        """Keeps none of the finished sequences."""
        self._finished.clear()
        self.kept_bytes = 0

    def new(self) -> cpu.KvCache:
        """An empty cache."""
        return cpu.KvCache(self._shapes, self._max_positions, self._max_rows, self._kv_format)

    def bytes_of(self, sequence: Sequence) -> int:
        """Memory that a sequence takes."""
        return cache_bytes(self._shapes, sequence.written, self._max_rows, self._kv_format)


def _common(kept: Sequence, tokens: Tokens[int], media: Tokens[MediumRows]) -> int:
    """Length of the longest common prefix: rows with equal tokens and, where they carry embeddings, equal keys."""
    pairs = enumerate(zip(kept.tokens, tokens, strict=False))
    length = next((at for at, (x, y) in pairs if x != y), min(len(kept.tokens), len(tokens)))
    for own, other in zip_longest(kept.media, media):
        if own != other:
            return min(length, *(one.first for one in (own, other) if one is not None))
    return length
