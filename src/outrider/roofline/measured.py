"""This machine's figures: small recorded programs, timed with their weights in the cache, and a sweep over memory."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence

import numpy as np

from outrider import kernels
from outrider.checkpoints.checkpoint import BLOCKS, Format
from outrider.roofline.hardware import Arithmetic, Hardware
from outrider.roofline.work import packed_bytes_per_weight

_ROWS = (1, 2, 4, 8, 16)
_OUTPUTS, _COLUMNS = 1024, 1536  # 0.9 MB in 4 bits: in the second level's cache of the cores that share it
_CALLS = 16
# What memory is measured with: many matrices as large as those of a small model, together larger than any cache, in
# the format that has the most bytes for its arithmetic.
_COLD_FORMAT: Format = "Q8_0"
_COLD_ROWS, _COLD_MATRICES = 768, 120
_POSITIONS, _HEADS, _HEAD_DIM = 512, 8, 256
_REPEATS, _QUARTILE = 9, 0.25
_KV_FORMAT: kernels.KvFormat = "float16"


class Gauge:
    """Small programs that show what bounds passes here. They take 300 MB as long as this object lives.

    Args:
        formats: of the weights that matter.
        threads: as many as the passes will have.
    """

    def __init__(self, formats: Collection[Format], threads: int) -> None:
        self._pool = kernels.ThreadPool(threads)
        self._linear = {format: _Timed(self._linear_program(format)) for format in formats}
        self._attention = self._attention_program()
        self._many = _Timed(self._sweeps(_COLD_ROWS, _COLD_MATRICES))
        self._one = _Timed(self._sweeps(_COLD_ROWS * _COLD_MATRICES, 1))

    def measure(self) -> Hardware:
        """Times all of them: memory, the start of a sweep, attention, and arithmetic for each of the formats.

        Takes half a second. What is timed takes turns, and the lower quartile counts: what others do on a shared
        machine hardly shows, and no lucky turn does.
        """
        weights, numbers = _CALLS * _OUTPUTS * _COLUMNS, _CALLS * 2 * _POSITIONS * _HEADS * _HEAD_DIM
        bytes_per_second, sweep_start = self._memory()
        return Hardware(
            f"this machine with {self._pool.size} threads",
            bytes_per_second,
            {format: timed.arithmetic(weights) for format, timed in self._linear.items()},
            self._attention.arithmetic(numbers),
            sweep_start,
        )

    def _memory(self) -> tuple[float, float]:
        """(bytes per second, seconds that a sweep takes to start), from many matrices against one of the same size."""
        nbytes = _COLD_ROWS * _COLD_MATRICES * _COLUMNS * packed_bytes_per_weight(_COLD_FORMAT)
        alone, longer = [], []
        for _ in range(_REPEATS):
            before, parted, after = self._one.seconds(1), self._many.seconds(1), self._one.seconds(1)
            alone += [before, after]
            longer.append((parted - (before + after) / 2) / _COLD_MATRICES)
        return nbytes / float(np.quantile(alone, _QUARTILE)), max(float(np.median(longer)), 0.0)

    def _linear_program(self, format: Format) -> kernels.Program:
        program, x = self._program(_COLUMNS)
        y, weight = program.buffer("y", _OUTPUTS), self._weight(format, _OUTPUTS)
        for _ in range(_CALLS):
            program.linear(x, [weight], [y])
        return program

    def _sweeps(self, rows: int, count: int) -> kernels.Program:
        """One sweep each over `count` matrices that no cache holds."""
        program, x = self._program(_COLUMNS)
        y = program.buffer("y", rows)
        for _ in range(count):
            program.linear(x, [self._weight(_COLD_FORMAT, rows)], [y])
        return program

    def _attention_program(self) -> _Timed:
        shape = kernels.KvShape(1, _HEAD_DIM, 0)
        program, x = self._program(_HEADS * _HEAD_DIM, shape)
        key, mixed = program.buffer("key", _HEAD_DIM), program.buffer("mixed", _HEADS * _HEAD_DIM)
        program.store_kv(key, key, 0)
        for _ in range(_CALLS):
            program.attention(x, 0, _HEADS, mixed)
        timed = _Timed(program, [shape], _POSITIONS)
        while timed.cache.length < _POSITIONS:
            timed.seconds(_ROWS[-1])
            timed.cache.commit(np.arange(_ROWS[-1], dtype=np.int32))
        return timed

    def _weight(self, format: Format, rows: int) -> kernels.Weight:
        """Zeros, which take as long as any weights: no kernel looks at what it multiplies."""
        per_block, size = BLOCKS[format]
        blocks = np.zeros(rows * _COLUMNS // per_block * size, np.uint8)
        return kernels.pack(format, rows, _COLUMNS, blocks, self._pool)

    def _program(self, width: int, *kv: kernels.KvShape) -> tuple[kernels.Program, int]:
        """A program that begins by filling a buffer of so many columns."""
        program = kernels.Program(_ROWS[-1], kv, _KV_FORMAT, self._pool)
        x = program.buffer("x", width)
        program.gather(kernels.table("F32", 1, width, np.ones(width, np.float32).view(np.uint8)), 1.0, x)
        return program, x


class _Timed:
    """A program with a cache to run it on."""

    def __init__(self, program: kernels.Program, kv: Sequence[kernels.KvShape] = (), positions: int = 0) -> None:
        self.program = program
        self.cache = kernels.KvCache(kv, positions + _ROWS[-1], _ROWS[-1], _KV_FORMAT)

    def arithmetic(self, pieces: int) -> Arithmetic:
        """Seconds for each of so many pieces, over each of `_ROWS` rows."""
        taken = [[self.seconds(rows) for rows in _ROWS] for _ in range(_REPEATS)]
        ascending = np.maximum.accumulate(np.quantile(taken, _QUARTILE, axis=0))  # more rows never cost less
        return Arithmetic(_ROWS, tuple(float(of) / pieces for of in ascending))

    def seconds(self, rows: int) -> float:
        """Of one run."""
        zeros, before = np.zeros(rows, np.int32), np.arange(-1, rows - 1, dtype=np.int32)
        started = time.perf_counter()
        self.program.run(zeros, zeros, before, zeros[:0], [self.cache], None)
        return time.perf_counter() - started
