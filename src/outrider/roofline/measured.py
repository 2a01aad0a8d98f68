"""This machine's figures: small recorded programs, timed with their weights in the cache, and a sweep over memory."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import numpy as np

from outrider.backends import cpu
from outrider.checkpoints.checkpoint import BLOCKS, Format
from outrider.roofline.hardware import Arithmetic, Hardware
from outrider.roofline.work import packed_bytes_per_weight
from outrider.speculation.costs import MOST_ROWS

_ROWS = (1, 2, 4, 8, 16)
_TILE = 16  # rows that threads share matrices in
_COLUMNS, _CALLS = 1536, 16
_WARM_BYTES = 450_000
"""Weights for each thread that arithmetic is measured with: they fit a core's own cache."""
_START_ROWS = (1, _ROWS[-1])
_COLD_BYTES, _COLD_BYTES_PER_THREAD = 150_000_000, 32_000_000
"""Weights that memory is measured with: more than the caches hold, which grow with the cores."""
_LEAST_WIDTH, _MOST_WIDTH = 512, 4096
"""Of what memory is measured with: of narrower matrices that makes many thousands, of wider ones too few to tell what
lies between two."""
_POSITIONS, _HEADS, _HEAD_DIM = 512, 8, 256
_REPEATS, _QUARTILE = 9, 0.25


class Microbenchmarks:
    """Small programs that show what bounds passes here. They take 300 MB, or 64 a thread, while this object lives.

    Args:
        formats: of the weights that matter, the one that most bytes are in first. Memory is measured with that one: the
            fewer bits, the slower a core that unpacks them reads.
        width: columns of most matrices. Memory is measured with such ones, of 512 to 4096 columns: it matters to what
            the core asks for ahead.
        threads: as many as the passes will have.
        kv_format: of keys and values.
    """

    def __init__(
        self, formats: Sequence[Format], width: int, threads: int, kv_format: cpu.KvFormat = "float16"
    ) -> None:
        self._pool, self._kv_format = cpu.ThreadPool(threads), kv_format
        self._outputs = {format: self._warm_outputs(format) for format in formats}
        self._linear = {format: _Timed(self._linear_program(format), kv_format) for format in formats}
        self._attention = self._attention_program()
        self._cold = formats[0]
        self._width = _whole_blocks(min(max(width, _LEAST_WIDTH), _MOST_WIDTH), self._cold)
        of_matrix = self._width**2 * packed_bytes_per_weight(self._cold)
        self._matrices = round(max(_COLD_BYTES, threads * _COLD_BYTES_PER_THREAD) / of_matrix)
        self._many = _Timed(self._sweeps(), kv_format)
        self._one = _Timed(self._sweep(), kv_format)

    def measure(self) -> Hardware:
        """Times all of them: memory, the start of a sweep, attention, and arithmetic for each of the formats.

        Takes less than a second. What is timed takes turns, and the lower quartile counts: what others do on a shared
        machine hardly shows, and no lucky turn does.
        """
        numbers = _CALLS * 2 * _POSITIONS * _HEADS * _HEAD_DIM
        streamed, sweep_start = self._memory()
        cold = self._cold
        threads = self._pool.size
        return Hardware(
            f"this machine with {threads} thread{'s' if threads > 1 else ''}",
            packed_bytes_per_weight(cold) / streamed.at(1),
            {
                format: timed.arithmetic(_CALLS * self._outputs[format] * _COLUMNS)
                for format, timed in self._linear.items()
            },
            self._attention.arithmetic(numbers),
            sweep_start,
            {cold: streamed},
            most_drafted=MOST_ROWS - 1,
        )

    def _warm_outputs(self, format: Format) -> int:
        """Rows of a matrix that the caches of all cores hold together."""
        of_tile = _TILE * _COLUMNS * packed_bytes_per_weight(format)
        return _TILE * max(round(self._pool.size * _WARM_BYTES / of_tile), 1)

    def _memory(self) -> tuple[Arithmetic, Arithmetic]:
        """(seconds of a weight that is read, what a sweep takes longer): the latter from many matrices against one."""
        alone: dict[int, list[float]] = {rows: [] for rows in _ROWS}
        longer: dict[int, list[float]] = {rows: [] for rows in _START_ROWS}
        for _ in range(_REPEATS):
            for rows in _ROWS:
                alone[rows].append(before := self._one.seconds(rows))
                if rows in longer:
                    parted, after = self._many.seconds(rows), self._one.seconds(rows)
                    alone[rows].append(after)
                    longer[rows].append((parted - (before + after) / 2) / self._matrices)
        starts = np.maximum.accumulate([max(float(np.median(of)), 0.0) for of in longer.values()])
        streamed = _ascending(list(alone.values()), self._width**2 * self._matrices)
        return streamed, Arithmetic(_START_ROWS, tuple(map(float, starts)))

    def _linear_program(self, format: Format) -> cpu.Program:
        program, x = self._program(_COLUMNS)
        outputs = self._outputs[format]
        y, weight = program.buffer("y", outputs), self._weight(format, outputs, _COLUMNS)
        for _ in range(_CALLS):
            program.linear(x, [weight], [y])
        return program

    def _sweep(self) -> cpu.Program:
        """One over a matrix that no cache holds."""
        rows = self._width * self._matrices
        program, x = self._program(self._width)
        program.linear(x, [self._weight(self._cold, rows, self._width)], [program.buffer("y", rows)])
        return program

    def _sweeps(self) -> cpu.Program:
        """As many bytes in small matrices, each of which needs what the one before gave, added to the residual stream
        between two norms: as in a model."""
        program, x = self._program(self._width)
        y, normed = (program.buffer(name, self._width) for name in ("y", "normed"))
        norm = np.ones(self._width, np.float32)
        program.rms_norm(x, norm, 1e-6, normed)
        for _ in range(self._matrices):
            program.linear(normed, [self._weight(self._cold, self._width, self._width)], [y])
            program.rms_norm(y, norm, 1e-6, y)
            program.add(y, x)
            program.rms_norm(x, norm, 1e-6, normed)
        return program

    def _attention_program(self) -> _Timed:
        shape = cpu.KvShape(1, _HEAD_DIM, 0)
        program, x = self._program(_HEADS * _HEAD_DIM, shape)
        key, mixed = program.buffer("key", _HEAD_DIM), program.buffer("mixed", _HEADS * _HEAD_DIM)
        program.store_kv(key, key, 0)
        for _ in range(_CALLS):
            program.attention(x, 0, _HEADS, mixed)
        timed = _Timed(program, self._kv_format, [shape], _POSITIONS)
        while timed.cache.length < _POSITIONS:
            timed.seconds(_ROWS[-1])
            timed.cache.commit(np.arange(_ROWS[-1], dtype=np.int32))
        return timed

    def _weight(self, format: Format, rows: int, columns: int) -> cpu.Weight:
        """Zeros, which take as long as any weights: no kernel looks at what it multiplies."""
        per_block, size = BLOCKS[format]
        blocks = np.zeros(rows * columns // per_block * size, np.uint8)
        return cpu.pack(format, rows, columns, blocks, self._pool)

    def _program(self, width: int, *kv: cpu.KvShape) -> tuple[cpu.Program, int]:
        """A program that begins by filling a buffer of so many columns."""
        program = cpu.Program(_ROWS[-1], kv, self._kv_format, self._pool)
        x = program.buffer("x", width)
        program.gather(cpu.table("F32", 1, width, np.ones(width, np.float32).view(np.uint8)), 1.0, x)
        return program, x


class _Timed:
    """A program with a cache to run it on."""

    def __init__(
        self,
        program: cpu.Program,
        kv_format: cpu.KvFormat,
        kv: Sequence[cpu.KvShape] = (),
        positions: int = 0,
    ) -> None:
        self.program = program
        self.cache = cpu.KvCache(kv, positions + _ROWS[-1], _ROWS[-1], kv_format)

    def arithmetic(self, pieces: int) -> Arithmetic:
        """Seconds for each of so many pieces, over each of `_ROWS` rows."""
        taken = [[self.seconds(rows) for rows in _ROWS] for _ in range(_REPEATS)]
        return _ascending(list(zip(*taken, strict=True)), pieces)

    def seconds(self, rows: int) -> float:
        """Of one run."""
        zeros, before = np.zeros(rows, np.int32), np.arange(-1, rows - 1, dtype=np.int32)
        started = time.perf_counter()
        self.program.run(zeros, zeros, before, zeros[:0], [self.cache], None)
        return time.perf_counter() - started


def _whole_blocks(width: int, format: Format) -> int:
    """The next width that is whole blocks and tiles."""
    multiple = math.lcm(BLOCKS[format][0], _TILE)
    return math.ceil(width / multiple) * multiple


def _ascending(taken: Sequence[Sequence[float]], pieces: int) -> Arithmetic:
    """From what so many pieces took over each of `_ROWS` rows, again and again. More rows never cost less."""
    seconds = np.maximum.accumulate([np.quantile(of, _QUARTILE) for of in taken])
    return Arithmetic(_ROWS, tuple(float(of) / pieces for of in seconds))
