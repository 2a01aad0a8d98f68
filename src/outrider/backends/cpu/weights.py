"""Passes a checkpoint's tensors to the native core: matrices packed, tables memory-mapped, vectors as float32.

Packing rearranges codes and scales without changing the value of any weight (csrc/weights/layout.h has the layouts byte
by byte):

| checkpoint       | codes        | scales                                                | bits, stored / packed    |
| ---------------- | ------------ | ----------------------------------------------------- | ------------------------ |
| Q4_0, Q5_0, Q8_0 | 4, 5, 8 bits | float16 per 32                                        | 4.5, 5.5, 8.5 / the same |
| Q4_1, Q5_1       | 4, 5 bits    | float16 scale and minimum per 32                      | 5, 6 / the same          |
| Q4_K, Q5_K       | 4, 5 bits    | float16 pair per 256, 6-bit pairs per 32, packed as 8 | 4.5, 5.5 / 4.625, 5.625  |
| Q6_K             | 6 bits       | float16 per 256, int8 per 16                          | 6.5625 / the same        |
| F32, F16, BF16   | -            | -                                                     | the same                 |
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from outrider.arrays import Floats
from outrider.backends import cpu
from outrider.checkpoints.adapters import LowRank
from outrider.checkpoints.checkpoint import Tensor

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
            self._packed[name] = cpu.pack(tensor.format, rows, tensor.shape[-1], data, self._pool, count=count)
            release_pages(data)
            self._progress(tensor.nbytes)
        return self._packed[name]

    def table(self, name: str) -> cpu.Table:
        """A table whose rows are read from the memory-mapped file, so that only the rows in use occupy memory."""
        tensor = self._tensors[name]
        return cpu.table(tensor.format, tensor.shape[-2], tensor.shape[-1], tensor.data)

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
        tensor = self._tensors[name]
        rows = tensor.data.reshape(tensor.shape[0], tensor.row_bytes)[order.reshape(-1)]
        return cpu.pack(
            tensor.format, order.shape[1], tensor.shape[1], rows.reshape(-1), self._pool, count=order.shape[0]
        )

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
