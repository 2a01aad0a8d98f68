"""Integer codes with a scale per group of columns -> a Tensor of the same values.

weight[r, c] = (code[r, c] - zero[r, g]) * scale[r, g] with g the group of column c, in float32: one rounding. Groups of
32 columns without zero points, whose scales are exact in float16, are blocks of Q4_0 or Q8_0, which are smaller than I4
and I8. Columns in no order, and groups that cannot be split into multiples of 32, become float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from outrider.arrays import Bytes, Floats, Ints
from outrider.checkpoints.checkpoint import BLOCKS, Format, Tensor
from outrider.checkpoints.hf.quantized.bits import packed, paired, unpacked
from outrider.checkpoints.hf.quantized.parts import INSTEAD, Parts
from outrider.checkpoints.hf.quantized.scales import StoredScales
from outrider.checkpoints.hf.safetensors_file import StoredTensor

_BLOCK, _ = BLOCKS["Q4_0"]  # as of Q8_0
_BLOCKS_OF: dict[int, Format] = {4: "Q4_0", 8: "Q8_0"}
_CODES_OF: dict[int, Format] = {2: "I2", 4: "I4", 8: "I8"}
_SIGN = np.uint8(0x80)


@dataclass(frozen=True)
class Integers:
    """A matrix of (rows, columns) codes.

    Attributes:
        parts: where it is stored.
        shape: (rows, columns).
        bits: of a code: 2, 4 or 8 (see `widened` for others).
        codes: returns (bytes,), packed row by row; unsigned, but those of 8 bits are signed, less 128.
        stored_scales: of one value for the matrix, each row or each group, in any order.
        scale: returns them as (rows, groups).
        zero: returns the unsigned codes (rows, groups) that stand for 0; None if that is 2 ** (bits - 1) everywhere.
        zero_fits: whether each of them fits a byte.
        group_of: the group of each column, (columns,); None for groups of equal size, one after another.
    """

    parts: Parts
    shape: tuple[int, int]
    bits: int
    codes: Callable[[], Bytes]
    stored_scales: StoredTensor
    scale: Callable[[], Floats]
    groups: int
    zero: Callable[[], Ints] | None = None
    zero_fits: bool = True
    group_of: Ints | None = None

    def tensor(self) -> Tensor:
        """See `Matrix.tensor`."""
        name, rows, columns = self.parts.matrix, *self.shape
        if self.group_of is not None or columns % (self.groups * _BLOCK) or not self.zero_fits:
            return self.float32()
        blocks = self.bits in _BLOCKS_OF and columns == self.groups * _BLOCK and self.zero is None
        if blocks and _exact_in_half(self.parts, self.stored_scales):
            return Tensor(name, _BLOCKS_OF[self.bits], self.shape, self._blocks)
        zero = (lambda read=self.zero: read().astype(np.uint8)) if self.zero else None
        scales = StoredScales((rows, self.groups), self.scale, zero)
        return Tensor(name, _CODES_OF[self.bits], self.shape, self.codes, scales=scales)

    def float32(self) -> Tensor:
        """See `Matrix.float32`."""
        return Tensor(self.parts.matrix, "F32", self.shape, self._float32)

    def _blocks(self) -> Bytes:
        """Q4_0 or Q8_0 blocks: a float16 scale, then the codes of 32 weights."""
        codes, scale = self.codes(), self.scale().astype(np.float16)
        out = np.empty((len(codes) * 8 // self.bits // _BLOCK, 2 + _BLOCK * self.bits // 8), np.uint8)
        out[:, :2] = scale.reshape(-1).view(np.uint8).reshape(-1, 2)
        if self.bits == 8:
            out[:, 2:] = codes.reshape(-1, _BLOCK)
        else:
            out[:, 2:] = paired(codes, _BLOCK)
        return out.reshape(-1)

    def _float32(self) -> Bytes:
        rows, columns = self.shape
        unsigned = self.codes() ^ _SIGN if self.bits == 8 else self.codes()
        codes = unpacked(unsigned, rows, columns, self.bits).astype(np.float32)
        zero = self.zero() if self.zero else np.full((1, self.groups), 1 << (self.bits - 1), np.int32)
        codes -= self._by_column(zero.astype(np.float32))
        codes *= self._by_column(self.scale())
        return codes.reshape(-1).view(np.uint8)

    def _by_column(self, of_groups: Floats) -> Floats:
        """(rows, columns) values from those of the groups."""
        if self.group_of is not None:
            return of_groups[:, self.group_of]
        return np.repeat(of_groups, self.shape[1] // self.groups, axis=1)


def dense(read: Callable[[], Bytes], bits: int) -> Callable[[], Bytes]:
    """The `codes` of `Integers` from unsigned ones that are packed in 2, 4 or 8 bits."""
    return read if bits < 8 else lambda: read() ^ _SIGN


def widened(codes: Callable[[], Bytes], bits: int, *, centred: bool) -> tuple[Callable[[], Bytes], int]:
    """The `codes` and `bits` of `Integers` from (rows, columns) codes of any width.

    Args:
        codes: returns the (rows, columns) codes.
        bits: their width, 1 to 8.
        centred: 2 ** (bits - 1) stands for 0, and shall be the middle of the wider codes.
    """
    width = next(width for width in (2, 4, 8) if width >= bits)
    shift = np.uint8((1 << width >> 1) - (1 << bits >> 1) if centred else 0)
    return dense(lambda: packed(codes() + shift, width), width), width


def _exact_in_half(parts: Parts, scales: StoredTensor) -> bool:
    """Whether float16 holds every one of these scales."""
    if scales.dtype == "F16":
        return True
    values = parts.float32(scales)
    with np.errstate(over="ignore"):
        halves: npt.NDArray[np.float16] = values.astype(np.float16)
    return np.array_equal(halves.astype(np.float32), values)


def group_count(parts: Parts, columns: int, group_size: int) -> int:
    """Groups of a row of `columns`; a size of -1 is a whole row, and the last group may be smaller."""
    if group_size == -1:
        return 1
    if group_size < 1:
        raise parts.fault(f"has a group size of {group_size} for {parts.matrix}")
    return -(-columns // group_size)


def with_even_groups(matrix: Integers, group_size: int) -> Integers:
    """The matrix in groups of equal size: those of `group_size` are split where they do not divide its rows."""
    columns = matrix.shape[1]
    if matrix.group_of is not None or group_size == -1 or columns % group_size == 0:
        return matrix
    width = math.gcd(columns, group_size)
    if width % _BLOCK:
        return replace(matrix, group_of=np.arange(columns, dtype=np.int32) // np.int32(group_size))
    groups, parts = columns // width, group_size // width
    read_scale, read_zero = matrix.scale, matrix.zero
    zero = (lambda: np.repeat(read_zero(), parts, axis=1)[:, :groups]) if read_zero else None
    scale = lambda: np.repeat(read_scale(), parts, axis=1)[:, :groups]  # noqa: E731
    return replace(matrix, groups=groups, scale=scale, zero=zero)


def even_columns(parts: Parts, columns: int, bits: int) -> None:
    """Refuse rows of codes that do not fill whole bytes: no layer of Gemma has such."""
    if columns * bits % 8:
        raise parts.fault(f"stores {parts.matrix} in rows of {columns} codes of {bits} bits", INSTEAD)
