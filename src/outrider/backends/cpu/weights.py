"""Passes a checkpoint's tensors to the native core: matrices packed, tables memory-mapped, vectors as float32.

Packing rearranges codes and scales without changing the value of any weight (csrc/weights/layout.h has the layouts byte
by byte):

| checkpoint       | codes        | scales                                                | bits, stored / packed    |
| ---------------- | ------------ | ----------------------------------------------------- | ------------------------ |
| Q4_0, Q5_0, Q8_0 | 4, 5, 8 bits | float16 per 32                                        | 4.5, 5.5, 8.5 / the same |
| Q4_1, Q5_1       | 4, 5 bits    | float16 scale and minimum per 32                      | 5, 6 / the same          |
| Q4_K, Q5_K       | 4, 5 bits    | float16 pair per 256, 6-bit pairs per 32, packed as 8 | 4.5, 5.5 / 4.625, 5.625  |
| Q6_K             | 6 bits       | float16 per 256, int8 per 16                          | 6.5625 / the same        |
| Q3_K             | 3 bits as 4  | float16 per 256, 6 bits per 16, packed as 8           | 3.4375 / 4.5625          |
| Q2_K             | 2 bits       | float16 pair per 256, 4-bit pairs per 16              | 2.625 / the same         |
| TQ2_0            | 2 bits       | float16 per 256                                       | 2.0625 / the same        |
| IQ4_NL           | 4 bits *     | float16 per 32                                        | 4.5 / the same           |
| IQ4_XS           | 4 bits *     | float16 per 256, 6 bits per 32, packed as 8           | 4.25 / 4.3125            |
| IQ3_S            | codebook     | float16 per 256, 4 bits per 32, packed as 8           | 3.4375 / 4.3125          |
| IQ3_XXS          | codebook     | float16 per 256, 4 bits per 32, packed in the codes   | 3.0625 / 4.0625          |
| MXFP4            | 4 bits *     | exponent byte per 32, packed as bfloat16              | 4.25 / 4.5               |
| NVFP4            | 4 bits *     | E4M3 per 16                                           | 4.5 / the same           |
| F32, F16, BF16   | -            | -                                                     | the same                 |
| I2, I4, I8       | 2, 4, 8 bits | float32 per row or per group of 32n columns           | the same                 |
| F8_E4M3          | 8 bits       | float32 per row or per group of 32n columns           | the same                 |

* The codes number the 16 values of a table. Entries of the codebooks of IQ3_S and IQ3_XXS are packed as such codes too.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache

import numpy as np
import numpy.typing as npt

from outrider.arrays import Bytes, Floats
from outrider.backends import cpu
from outrider.checkpoints.adapters import LowRank
from outrider.checkpoints.checkpoint import SCALED_FORMATS, Format, GroupScales, Tensor, bytes_as

Progress = Callable[[int], None]


def _no_progress(_: int) -> None:
    """The default progress callback."""


class WeightStore:
    """Packs the tensors of one checkpoint on demand, each at most once.

    Args:
        tensors: the checkpoint's tensors by neutral name.
        pool: the threads that pack.
        progress: called after each packed tensor with its bytes in the checkpoint.
    """

    def __init__(self, tensors: Mapping[str, Tensor], pool: cpu.ThreadPool, progress: Progress = _no_progress) -> None:
        self._tensors = tensors
        self._pool = pool
        self._progress = progress
        self._packed: dict[str, cpu.Weight] = {}

    def __contains__(self, name: object) -> bool:
        return name in self._tensors

    def matrix(self, name: str) -> cpu.Weight:
        """The packed matrix of a (rows, columns) tensor, or of a stack (count, rows, columns)."""
        if name not in self._packed:
            tensor = self._tensors[name]
            count, rows, data = math.prod(tensor.shape[:-2]), tensor.shape[-2], tensor.data
            arrays = *_arrays(tensor.scales), _factors(tensor, count)
            self._packed[name] = cpu.pack(tensor.format, rows, tensor.shape[-1], data, self._pool, count, *arrays)
            release_pages(data)
            self._progress(tensor.nbytes)
        return self._packed[name]

    def table(self, name: str) -> cpu.Table:
        """A table whose rows are read from the memory-mapped file, so that only the rows in use occupy memory."""
        tensor = self._tensors[name]
        rows, columns, factor = tensor.shape[-2], tensor.shape[-1], float(tensor.factor)
        return cpu.table(tensor.format, rows, columns, tensor.data, *_arrays(tensor.scales), factor)

    def vector(self, name: str) -> Floats:
        """A one-dimensional tensor as float32."""
        tensor = self._tensors[name]
        values: Floats = cpu.dequantize(tensor.format, 1, math.prod(tensor.shape), tensor.data)
        return values.reshape(-1)

    def integers(self, name: str) -> npt.NDArray[np.int32]:
        """A tensor of format I32."""
        return self._tensors[name].data.view(np.int32)

    def reordered(self, name: str, order: npt.NDArray[np.int32]) -> cpu.Weight:
        """A (rows, columns) matrix as a stack of clusters: matrix i has the rows order[i]; `order` is (count, size)."""
        tensor, rows = self._tensors[name], order.reshape(-1)
        data = tensor.data.reshape(tensor.shape[0], tensor.row_bytes)[rows].reshape(-1)
        if (scales := tensor.scales) is not None:
            scales = GroupScales(scales.scale[rows], None if scales.zero is None else scales.zero[rows])
        count, size = order.shape
        arrays = *_arrays(scales), _factors(tensor, count)
        return cpu.pack(tensor.format, size, tensor.shape[1], data, self._pool, count, *arrays)

    def scalar(self, name: str) -> float:
        """The value of a tensor with one element."""
        return float(self.vector(name)[0])

    @property
    def packed_bytes(self) -> int:
        """Bytes held by all packed matrices."""
        return sum(weight.nbytes for weight in self._packed.values())


def low_rank(number: int, part: LowRank, pool: cpu.ThreadPool) -> cpu.LowRank:
    """Packs what adapter `number` adds to a matrix, its values unchanged."""
    a, b, (rank, width) = _narrow(part.a), _narrow(part.b), part.a.shape
    count = _ranges(width)
    ranges = a.data.reshape(rank, count, a.row_bytes // count).transpose(1, 0, 2).reshape(-1)
    return cpu.LowRank(
        number,
        cpu.pack(a.format, rank, width // count, ranges, pool, count=count),
        cpu.pack(b.format, b.shape[0], rank, b.data, pool),
        part.scale,
    )


def _narrow(tensor: Tensor) -> Tensor:
    """The same values in half the bytes if all are bfloat16: training in that type is often saved as F32."""
    if tensor.format != "F32" or (bits := tensor.data.view("<u4")).astype("<u2").any():
        return tensor
    return replace(tensor, format="BF16", stored=(bits >> 16).astype("<u2").view(np.uint8))


def _ranges(width: int) -> int:
    """The ranges into which a low-rank sum over an input of this width is divided, so that threads can share it: of
    512 columns or more, whatever the number of threads, since the ranges decide the order of additions."""
    return next(count for count in (16, 8, 4, 2, 1) if count == 1 or (width % count == 0 and width // count >= 512))


def packed_bytes(tensor: Tensor, to: Format | None = None) -> int:
    """Bytes that a matrix takes once it is packed, in its own format or quantized to another."""
    if to is None and tensor.scales is not None:
        return tensor.nbytes
    return round(math.prod(tensor.shape) * packed_bytes_per_weight(to or tensor.format))


@cache
def packed_bytes_per_weight(format: Format) -> float:
    """Bytes that a weight takes once it is packed, in rows of a usual length. Some formats grow a little; see above."""
    rows, columns = 16, 2048
    return any_weights(format, rows, columns, cpu.ThreadPool(1)).nbytes / (rows * columns)


def any_weights(format: Format, rows: int, columns: int, pool: cpu.ThreadPool) -> cpu.Weight:
    """A packed matrix that takes as long to read and multiply as any other: no scale in it is subnormal, as 0 is in
    MXFP4, which would take some processors longer."""
    blocks = np.full(bytes_as((rows, columns), format), 0x3C, np.uint8)
    scale = np.zeros((rows, 1), np.float32) if format in SCALED_FORMATS else None
    return cpu.pack(format, rows, columns, blocks, pool, scale=scale)


def _factors(tensor: Tensor, count: int) -> Floats | None:
    """The factor of each of a stack's matrices, (count,) float32; None if it is 1."""
    if isinstance(tensor.factor, float) and tensor.factor == 1.0:
        return None
    return np.broadcast_to(np.asarray(tensor.factor, np.float32).reshape(-1), count).copy()


def _arrays(scales: GroupScales | None) -> tuple[Floats | None, Bytes | None]:
    """The arguments `scale` and `zero` of the core."""
    return (None, None) if scales is None else (scales.scale, scales.zero)


def release_pages(data: npt.NDArray[np.uint8]) -> None:
    """Releases the pages of a memory-mapped tensor that is not read again, so that they do not add to its packed copy.

    The pages stay in the page cache of the system. Does nothing where madvise is missing.
    """
    base: object = data
    while isinstance(base, np.ndarray):
        if isinstance(base, np.memmap):
            break
        base = base.base
    mapped = getattr(base, "_mmap", None) if isinstance(base, np.memmap) else base
    if not isinstance(mapped, mmap.mmap) or not hasattr(mmap, "MADV_DONTNEED"):
        return
    whole = np.frombuffer(mapped, np.uint8)
    start = data.__array_interface__["data"][0] - whole.__array_interface__["data"][0]
    first = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE
    length = (start + data.nbytes - first) // mmap.PAGESIZE * mmap.PAGESIZE
    if length > 0:
        mapped.madvise(mmap.MADV_DONTNEED, first, length)
