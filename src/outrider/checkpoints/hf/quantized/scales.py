"""Scales that stay in the file until a matrix is packed: a large model's would fill memory as float32."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from outrider.arrays import Bytes, Floats
from outrider.checkpoints.checkpoint import GroupScales


class StoredScales(GroupScales):
    """`GroupScales` that are read anew at each use.

    Args:
        shape: (rows, groups).
        scale: returns the scales, (rows, groups) float32.
        zero: returns the zero points, (rows, groups) uint8; None for the middle code.
    """

    def __init__(
        self, shape: tuple[int, int], scale: Callable[[], Floats], zero: Callable[[], Bytes] | None = None
    ) -> None:
        # The base is frozen, and its fields are what the properties compute.
        for name, value in (("shape", shape), ("_read_scale", scale), ("_read_zero", zero)):
            object.__setattr__(self, name, value)

    shape: tuple[int, int]
    _read_scale: Callable[[], Floats]
    _read_zero: Callable[[], Bytes] | None

    @property
    def scale(self) -> Floats:  # type: ignore[override]
        """See `GroupScales`."""
        return np.ascontiguousarray(self._read_scale())

    @property
    def zero(self) -> Bytes | None:  # type: ignore[override]
        """See `GroupScales`."""
        return np.ascontiguousarray(self._read_zero()) if self._read_zero else None

    @property
    def has_zero(self) -> bool:
        """Whether there are zero points; they are not read."""
        return self._read_zero is not None

    @property
    def nbytes(self) -> int:
        """See `GroupScales`."""
        return math.prod(self.shape) * (5 if self._read_zero else 4)


def stacked_scales(parts: Sequence[StoredScales]) -> StoredScales | None:
    """The scales of a stack of matrices, which all have zero points or none; None of matrices without scales."""
    if not parts:
        return None
    rows, groups = parts[0].shape

    def scale() -> Floats:
        return np.concatenate([part.scale for part in parts])

    def zero() -> Bytes:
        return np.concatenate([points for part in parts if (points := part.zero) is not None])

    return StoredScales((rows * len(parts), groups), scale, zero if parts[0].has_zero else None)
