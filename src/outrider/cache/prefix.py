"""Caches that outlive their request, so that a prompt that begins as an earlier one did need not be computed again."""

from __future__ import annotations

from collections.abc import Sequence as Tokens
from dataclasses import dataclass

from outrider import kernels


@dataclass
class Sequence:
    """A cache and the tokens whose keys and values it holds: `tokens[:cache.length]` are in it."""

    cache: kernels.KvCache
    tokens: list[int]


class CachePool:
    """Hands out caches, and takes back those of finished requests.

    Args:
        shapes: the model's cache layers.
        max_positions: longest sequence, rows in flight included.
        max_rows: most rows of one pass.
        kv_format: how keys and values are kept.
        kept: how many finished sequences are kept for their prefix.
    """

    def __init__(
        self,
        shapes: list[kernels.KvShape],
        max_positions: int,
        max_rows: int,
        *,
        kv_format: kernels.KvFormat,
        kept: int = 1,
    ) -> None:
        self._shapes, self._max_positions, self._max_rows = shapes, max_positions, max_rows
        self._kv_format = kv_format
        self._kept = kept
        self._finished: list[Sequence] = []  # least recently used first

    def open(self, tokens: list[int]) -> Sequence:
        """A sequence for `tokens`, already holding as long a prefix of them as a finished one can give.

        At least the last token is left to compute, since its hidden state is not kept. Reused or computed anew, the
        bits are the same (rows do not see each other).
        """
        best, shared = None, 0
        for sequence in self._finished:
            common = min(_common(sequence.tokens, tokens), sequence.cache.length, len(tokens) - 1)
            if common > shared and common >= sequence.cache.earliest:
                best, shared = sequence, common
        if best is None:
            return Sequence(self.new(), tokens)
        self._finished.remove(best)
        best.cache.truncate(shared)
        return Sequence(best.cache, tokens)

    def close(self, sequence: Sequence) -> None:
        """Takes a finished sequence back; the least recently finished one makes room."""
        self._finished.append(sequence)
        del self._finished[: max(0, len(self._finished) - self._kept)]

    def new(self) -> kernels.KvCache:
        """An empty cache."""
        return kernels.KvCache(self._shapes, self._max_positions, self._max_rows, self._kv_format)


def _common(a: Tokens[int], b: Tokens[int]) -> int:
    """Length of the longest common prefix."""
    length = 0
    for x, y in zip(a, b, strict=False):
        if x != y:
            break
        length += 1
    return length
