"""This machine's two numbers, measured with the kernels: memory bandwidth, and multiply-adds per second."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from outrider.backends import cpu
from outrider.backends.cpu.weights import any_weights, packed_bytes_per_weight
from outrider.checkpoints.checkpoint import Format
from outrider.roofline.hardware import Hardware
from outrider.speculation.costs import MOST_ROWS

_COLUMNS = 1536
_TILE = 16  # output rows that a thread takes at once
_COLD_BYTES, _COLD_BYTES_PER_THREAD = 150_000_000, 32_000_000
"""Weights that are read from memory: more than the caches hold, which grow with the cores."""
_WARM_BYTES_PER_THREAD = 450_000
"""Weights that are multiplied with: they fit into a core's own cache."""
_WARM_ROWS, _WARM_CALLS = 16, 16
_REPEATS, _QUARTILE = 9, 0.25


def measure_hardware(format: Format, threads: int) -> Hardware:
    """This machine, in under two seconds: by the lower quartile, which load by other processes hardly changes.

    Args:
        format: of the weights: the fewer bits, the slower a core that unpacks them reads.
        threads: as many as the passes will have.
    """
    machine = Machine(format, threads)
    return machine.hardware([machine.sample() for _ in range(_REPEATS)], _QUARTILE)


class Machine:
    """The two programs behind the two numbers. They take 150 MB, or 32 MB a thread, while this object lives."""

    def __init__(self, format: Format, threads: int) -> None:
        self._pool, self._bytes_per_weight = cpu.ThreadPool(threads), packed_bytes_per_weight(format)
        self._cold = _outputs(max(_COLD_BYTES, threads * _COLD_BYTES_PER_THREAD) / self._bytes_per_weight)
        self._warm = _outputs(threads * _WARM_BYTES_PER_THREAD / self._bytes_per_weight)
        self._reading = _product(format, self._cold, 1, self._pool)
        self._multiplying = _product(format, self._warm, _WARM_CALLS, self._pool)

    def sample(self) -> tuple[float, float]:
        """Seconds of one reading of the cold weights, and of many rows times the warm ones."""
        return _seconds(self._reading, 1), _seconds(self._multiplying, _WARM_ROWS)

    def hardware(self, samples: Sequence[tuple[float, float]], quantile: float = 0.5) -> Hardware:
        """The machine, by the medians of samples, or another quantile of their seconds."""
        read, multiplied = map(float, np.quantile(samples, quantile, axis=0))
        threads = self._pool.size
        return Hardware(
            f"this machine with {threads} thread{'s' if threads > 1 else ''}",
            bytes_per_second=self._cold * _COLUMNS * self._bytes_per_weight / read,
            multiply_adds_per_second=_WARM_CALLS * _WARM_ROWS * self._warm * _COLUMNS / multiplied,
            most_drafted=MOST_ROWS - 1,
        )


def _outputs(weights: float) -> int:
    """Output rows of a matrix with that number of weights, in whole tiles."""
    return _TILE * max(round(weights / _COLUMNS / _TILE), 1)


def _product(format: Format, outputs: int, calls: int, pool: cpu.ThreadPool) -> cpu.Program:
    """A program of `calls` products with one (outputs, _COLUMNS) matrix."""
    program = cpu.Program(_WARM_ROWS, [], "float16", pool)
    x, y = program.buffer("x", _COLUMNS), program.buffer("y", outputs)
    program.gather(cpu.table("F32", 1, _COLUMNS, np.ones(_COLUMNS, np.float32).view(np.uint8)), 1.0, x)
    weight = any_weights(format, outputs, _COLUMNS, pool)
    for _ in range(calls):
        program.linear(x, [weight], [y])
    return program


def _seconds(program: cpu.Program, rows: int) -> float:
    cache = cpu.KvCache(cpu.KvPages([], "float16"), _WARM_ROWS, _WARM_ROWS)
    zeros, parents = np.zeros(rows, np.int32), np.arange(-1, rows - 1, dtype=np.int32)
    started = time.perf_counter()
    program.run(zeros, zeros, parents, zeros[:0], [cache], None)
    return time.perf_counter() - started
