"""Keys and values of one sequence, as plain arrays."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from outrider.arrays import Floats, Ints
from outrider.program import KvLayer


class ReferenceCache:
    """Every position of every layer, window or not, and what the last pass staged."""

    def __init__(self, layers: Sequence[KvLayer]) -> None:
        self._committed = [_empty(layer) for layer in layers]
        self._staged = [_empty(layer) for layer in layers]

    @property
    def length(self) -> int:
        """Committed positions."""
        return len(self._committed[0][0]) if self._committed else 0

    def stage(self, layer: int, keys: Floats, values: Floats) -> None:
        """The rows of a pass, (rows, kv_heads, head_dim) each."""
        self._staged[layer] = keys, values

    def seen(self, layer: int, path: Sequence[int]) -> tuple[Floats, Floats]:
        """Keys and values of what is committed, then of the staged rows of `path`: (positions, kv_heads, head_dim)."""
        (keys, values), (more_keys, more_values) = self._committed[layer], self._staged[layer]
        rows = list(path)
        return np.concatenate([keys, more_keys[rows]]), np.concatenate([values, more_values[rows]])

    def commit(self, path: Ints) -> None:
        """Makes staged rows, ascending, the next positions."""
        self._committed = [self.seen(layer, path.tolist()) for layer in range(len(self._committed))]

    def truncate(self, length: int) -> None:
        """Goes back to `length` positions."""
        self._committed = [(keys[:length], values[:length]) for keys, values in self._committed]


def _empty(layer: KvLayer) -> tuple[Floats, Floats]:
    shape = (0, layer.kv_heads, layer.head_dim)
    return np.zeros(shape, np.float32), np.zeros(shape, np.float32)
