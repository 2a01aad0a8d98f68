"""8-bit and 4-bit floats with scales -> a Tensor of the same values."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from outrider.arrays import Bytes, Floats
from outrider.checkpoints.checkpoint import Tensor
from outrider.checkpoints.hf.quantized.bits import E2M1, E4M3, unpacked
from outrider.checkpoints.hf.quantized.parts import INSTEAD, MAX_SCALE, Parts
from outrider.checkpoints.hf.safetensors_file import StoredTensor

_NOT_A_NUMBER = 0x7F  # of E4M3, without its sign
_BIAS = 127  # of an exponent that is stored as a byte


def float8(parts: Parts, weight: StoredTensor, scales: StoredTensor, tile: tuple[int, int]) -> Tensor:
    """A matrix (or a stack of them) of E4M3, each tile of (rows, columns) with a scale of its own.

    Args:
        parts: where it is stored.
        weight: (..., rows, columns).
        scales: one value for each tile in order, of any shape: (..., tile rows, tile columns) values.
        tile: rows and columns of a tile; those at the ends may be smaller.
    """
    *stack, rows, columns = weight.shape
    height, width = tile
    grid = (math.prod(stack), -(-rows // height), -(-columns // width))
    if math.prod(scales.shape) != math.prod(grid):
        raise parts.misfit("the scales", scales.shape, str((*stack, *grid[1:])))

    def values() -> Bytes:
        if ((weight.data & np.uint8(_NOT_A_NUMBER)) == _NOT_A_NUMBER).any():
            raise parts.fault(f"holds weights of {parts.matrix} that are no numbers")
        out = E4M3[weight.data].reshape(grid[0], rows, columns)
        scale = parts.float32(scales).reshape(grid)
        out *= np.repeat(np.repeat(scale, height, axis=1)[:, :rows], width, axis=2)[:, :, :columns]
        return out.reshape(-1).view(np.uint8)

    return Tensor(parts.matrix, "F32", weight.shape, values)


def nvfp4(parts: Parts, codes: StoredTensor, scales: StoredTensor, factor: float) -> Tensor:
    """A matrix of E2M1 in groups of 16, each with a scale in E4M3; `factor` scales all of it.

    `codes` are (rows, columns / 2) bytes, the even column in the low half; `scales` are (rows, columns / 16).
    """
    if not 0 < factor < MAX_SCALE:
        raise parts.fault(f"scales {parts.matrix} by {factor:g}")
    return _float4(parts, codes, lambda: _e4m3_scales(parts, scales) * np.float32(factor), 16)


def mxfp4(parts: Parts, codes: StoredTensor, scales: StoredTensor) -> Tensor:
    """A matrix of E2M1 in groups of 32, each with a power of two: `scales` are (rows, columns / 32), exponent + 127."""
    return _float4(parts, codes, lambda: _powers(parts, scales), 32)


def _float4(parts: Parts, codes: StoredTensor, scales: Callable[[], Floats], group: int) -> Tensor:
    rows, columns = codes.shape[0], 2 * codes.shape[1]

    def values() -> Bytes:
        out = E2M1[unpacked(codes.data, rows, columns, 4)]
        out *= np.repeat(scales().reshape(rows, -1), group, axis=1)
        return out.reshape(-1).view(np.uint8)

    return Tensor(parts.matrix, "F32", (rows, columns), values)


def fp4_groups(parts: Parts, codes: StoredTensor, group: int) -> tuple[int, int]:
    """The shape of the scales of a matrix of E2M1 in groups of `group` columns."""
    rows, columns = codes.shape[0], 2 * codes.shape[1]
    if columns % group:
        raise parts.fault(f"stores {parts.matrix} in rows of {columns}, no multiple of {group}", INSTEAD)
    return rows, columns // group


def _e4m3_scales(parts: Parts, scales: StoredTensor) -> Floats:
    if (scales.data >= _NOT_A_NUMBER).any():
        raise parts.fault(f"scales {parts.matrix} by numbers that are negative or no numbers")
    return E4M3[scales.data]


def _powers(parts: Parts, scales: StoredTensor) -> Floats:
    if (scales.data >= _BIAS + math.log2(MAX_SCALE)).any():
        raise parts.fault(f"scales {parts.matrix} by exponents that stand for no number, or one too large")
    return np.ldexp(np.float32(1), scales.data.astype(np.int32) - _BIAS)
