"""The key-value cache of the reference executor."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from outrider.arrays import Floats, Ints
from outrider.program import KvLayer


class ReferenceCache:
    """Keys and values of one sequence: all positions of every layer, sliding-window or not, and the staged rows."""

    def __init__(self, layers: Sequence[KvLayer]) -> None:
        self._committed = [_empty(layer) for layer in layers]
        self._staged = [_empty(layer) for layer in layers]

    @property
    def length(self) -> int:
        """Committed positions."""
        return len(self._committed[0][0]) if self._committed else 0

    def stage(self, layer: int, keys: Floats, values: Floats) -> None:
        """Stages the keys and values of a pass's rows, (rows, kv_heads, head_dim) each."""
        self._staged[layer] = keys, values

    def attended(self, layer: int, path: Sequence[int]) -> tuple[Floats, Floats]:
        """Keys and values of the committed positions and the staged rows of `path`: (positions, kv_heads, head_dim)."""
        (keys, values), (staged_keys, staged_values) = self._committed[layer], self._staged[layer]
        rows = list(path)
        return np.concatenate([keys, staged_keys[rows]]), np.concatenate([values, staged_values[rows]])

    def commit(self, path: Ints) -> None:
        """Turns staged rows, ascending, into the next positions."""
        self._committed = [self.attended(layer, path.tolist()) for layer in range(len(self._committed))]

    def truncate(self, length: int) -> None:
        """Shortens the sequence to `length` positions."""
        self._committed = [(keys[:length], values[:length]) for keys, values in self._committed]


def _empty(layer: KvLayer) -> tuple[Floats, Floats]:
    shape = (0, layer.kv_heads, layer.head_dim)
    return np.zeros(shape, np.float32), np.zeros(shape, np.float32)
