"""8-bit and 4-bit floats with scales -> a Tensor of the same values."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from outrider.arrays import Bytes, Floats
from outrider.checkpoints.checkpoint import BLOCKS, Format, Tensor
from outrider.checkpoints.hf.quantized.bits import E2M1, E4M3, paired, unpacked
from outrider.checkpoints.hf.quantized.parts import INSTEAD, MAX_SCALE, Parts
from outrider.checkpoints.hf.quantized.scales import StoredScales
from outrider.checkpoints.hf.safetensors_file import StoredTensor

NVFP4_GROUP, MXFP4_GROUP = 16, 32
_BLOCKS_OF: dict[int, Format] = {NVFP4_GROUP: "NVFP4", MXFP4_GROUP: "MXFP4"}
_NOT_A_NUMBER = 0x7F  # of E4M3, without its sign
_MAX_EXPONENT = math.frexp(MAX_SCALE)[1] - 1
_BIAS = 127  # of an exponent that is stored as a byte


@dataclass(frozen=True)
class Float8:
    """A matrix (or a stack of them) of E4M3, each tile of (rows, columns) with a scale of its own.

    Attributes:
        parts: where it is stored.
        weight: (..., rows, columns).
        scales: one value for each tile in order, of any shape: (..., tile rows, tile columns) values.
        tile: rows and columns of a tile; those at the ends may be smaller.
    """

    parts: Parts
    weight: StoredTensor
    scales: StoredTensor
    tile: tuple[int, int]

    def __post_init__(self) -> None:
        if math.prod(self.scales.shape) != math.prod(self._grid):
            raise self.parts.misfit("the scales", self.scales.shape, f"{math.prod(self._grid)} values")

    @property
    def _grid(self) -> tuple[int, int, int]:
        """(matrices, tile rows, tile columns)."""
        *stack, rows, columns = self.weight.shape
        return math.prod(stack), -(-rows // self.tile[0]), -(-columns // self.tile[1])

    def tensor(self) -> Tensor:
        """See `Matrix.tensor`. Every row of a tile has its scale, and so has every part of it that rows divide into."""
        columns = self.weight.shape[-1]
        width = math.gcd(columns, self.tile[1])
        if width % BLOCKS["F8_E4M3"][0]:
            return self.float32()
        scales = StoredScales((math.prod(self.weight.shape[:-1]), columns // width), lambda: self._spread(width))
        return Tensor(self.parts.matrix, "F8_E4M3", self.weight.shape, self.weight.data, scales=scales)

    def float32(self) -> Tensor:
        """See `Matrix.float32`."""
        return Tensor(self.parts.matrix, "F32", self.weight.shape, self._float32)

    def _float32(self) -> Bytes:
        out = E4M3[self.weight.data].reshape(-1, self.weight.shape[-1])
        out *= self._spread(1)
        return out.reshape(-1).view(np.uint8)

    def _spread(self, width: int) -> Floats:
        """(rows of all matrices, columns / width): the scale of every `width` columns, which divide a tile's."""
        rows, columns = self.weight.shape[-2:]
        scale = self.parts.float32(self.scales).reshape(self._grid)
        by_row = np.repeat(scale, min(self.tile[0], rows), axis=1)[:, :rows]
        of_tile = min(self.tile[1], columns) // width
        return np.repeat(by_row, of_tile, axis=2)[:, :, : columns // width].reshape(-1, columns // width)


@dataclass(frozen=True)
class Float4:
    """A matrix of E2M1 in groups of columns, each with a scale.

    Attributes:
        parts: where it is stored.
        codes: (rows, columns / 2) bytes, the even column in the low half.
        scales: (rows, columns / group): E4M3 (NVFP4, groups of 16), or exponents + 127 (MXFP4, groups of 32).
        group: columns of a group.
        factor: scales the whole matrix.
    """

    parts: Parts
    codes: StoredTensor
    scales: StoredTensor
    group: int
    factor: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.factor < MAX_SCALE:
            raise self.parts.fault(f"scales {self.parts.matrix} by {self.factor:g}")

    @property
    def _shape(self) -> tuple[int, int]:
        rows, half = self.codes.shape
        return rows, 2 * half

    def tensor(self) -> Tensor:
        """See `Matrix.tensor`. The blocks of GGUF have the same codes and scales in another order."""
        format = _BLOCKS_OF[self.group]
        if self._shape[1] % BLOCKS[format][0]:
            return self.float32()
        return Tensor(self.parts.matrix, format, self._shape, self._blocks, factor=self.factor)

    def float32(self) -> Tensor:
        """See `Matrix.float32`."""
        return Tensor(self.parts.matrix, "F32", self._shape, self._float32)

    def _checked_scales(self) -> Bytes:
        """(bytes,), every one the positive scale of a finite weight."""
        stored, is_e4m3 = self.scales.data, self.group == NVFP4_GROUP
        if (stored >= (_NOT_A_NUMBER if is_e4m3 else _BIAS + _MAX_EXPONENT)).any():
            raise self.parts.fault(f"scales {self.parts.matrix} by what is negative, too large, or no number")
        return stored

    def _blocks(self) -> Bytes:
        """Blocks of scales, then codes."""
        weights, size = BLOCKS[_BLOCKS_OF[self.group]]
        groups = weights // self.group
        scales = self._checked_scales().reshape(-1, groups)
        out = np.empty((len(scales), size), np.uint8)
        out[:, :groups] = scales
        out[:, groups:] = paired(self.codes.data, self.group).reshape(len(scales), -1)
        return out.reshape(-1)

    def _float32(self) -> Bytes:
        rows, columns = self._shape
        out = E2M1[unpacked(self.codes.data, rows, columns, 4)]
        stored = self._checked_scales()
        scales = E4M3[stored] if self.group == NVFP4_GROUP else np.ldexp(np.float32(1), stored.astype(np.int32) - _BIAS)
        out *= np.repeat(scales.reshape(rows, -1), self.group, axis=1)
        out *= np.float32(self.factor)
        return out.reshape(-1).view(np.uint8)


def fp4_groups(parts: Parts, codes: StoredTensor, group: int) -> tuple[int, int]:
    """The shape of the scales of a matrix of E2M1 in groups of `group` columns."""
    rows, columns = codes.shape[0], 2 * codes.shape[1]
    if columns % group:
        raise parts.fault(f"stores {parts.matrix} in rows of {columns}, no multiple of {group}", INSTEAD)
    return rows, columns // group
