"""A pass over one row at E2B's true shape in each block format, as a multiple of reading its packed weights.

    python -m benchmarks.format_passes [INSTRUCTION_SET [FORMAT ...]]

One thread, by its processor time: other programs slow it down only by the memory bandwidth that they take. Reading is a
sweep of float32 weights, in the turns of the passes. The weights are made in memory, 1 to 3 GB.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from statistics import median

import numpy as np

from outrider.assembly import cpu_target
from outrider.backends import cpu
from outrider.backends.cpu.weights import WeightStore, any_weights
from outrider.checkpoints import Format, ModelConfig, Tensor
from outrider.checkpoints.checkpoint import FLOAT_FORMATS, SCALED_FORMATS, WEIGHT_FORMATS
from outrider.models.gemma import kv_layers
from outrider.roofline.sizes import published_size
from outrider.roofline.work import target_work

CONTEXT, ROUNDS, PASSES = 128, 9, 3
SWEEP, COLUMNS = 200_000_000, 1536


def main(instruction_set: str, formats: list[Format]) -> None:
    """Prints a line for each format."""
    cpu.choose_instruction_set(instruction_set)
    sweep, swept = _sweep()
    print(f"{instruction_set:11} packed GB  pass ms  read ms  multiple")
    for weights in formats:
        size = published_size("E2B", weights)
        tensors = _filled(size.tensors)
        work = target_work(tensors, size.config)
        one_pass = _passes(tensors, size.config)
        seconds, reading = [], []
        for _ in range(ROUNDS):
            reading.append(median(sweep() for _ in range(PASSES)) / swept * work.bytes_per_token)
            seconds.append(median(one_pass() for _ in range(PASSES)))
        multiple = median(taken / read for taken, read in zip(seconds, reading, strict=True))
        figures = work.bytes_per_token / 1e9, 1000 * median(seconds), 1000 * median(reading), multiple
        print(f"{weights:11} {figures[0]:9.3f} {figures[1]:8.1f} {figures[2]:8.1f} {figures[3]:9.2f}", flush=True)


def _filled(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same with weights: a byte that is a small number in every scale."""
    fill = np.full(max(tensor.nbytes for tensor in tensors.values()), 0x3C, np.uint8)
    return {name: replace(tensor, stored=fill[: tensor.nbytes]) for name, tensor in tensors.items()}


def _sweep() -> tuple[Callable[[], float], int]:
    """A function that reads float32 weights and returns its seconds; and their bytes."""
    pool, outputs = cpu.ThreadPool(1), SWEEP // 4 // COLUMNS // 16 * 16
    program = cpu.Program(1, [], "float16", pool)
    x, y = program.buffer("x", COLUMNS), program.buffer("y", outputs)
    program.gather(cpu.table("F32", 1, COLUMNS, np.ones(COLUMNS, np.float32).view(np.uint8)), 1.0, x)
    program.linear(x, [any_weights("F32", outputs, COLUMNS, pool)], [y])
    cache, zero = cpu.KvCache(cpu.KvPages([], "float16"), 1, 1), np.zeros(1, np.int32)
    return lambda: _seconds(lambda: program.run(zero, zero, zero - 1, zero[:0], [cache])), 4 * outputs * COLUMNS


def _passes(tensors: Mapping[str, Tensor], config: ModelConfig) -> Callable[[], float]:
    """A function that runs a pass over one row and returns its seconds."""
    pool = cpu.ThreadPool(1)
    program = cpu_target(config, WeightStore(tensors, pool), pool, max_rows=CONTEXT, kv_format="float16").program
    cache = cpu.KvCache(cpu.KvPages(cpu.kv_shapes(kv_layers(config)), "float16"), 2 * CONTEXT, CONTEXT)

    def run(rows: int) -> float:
        token, parent = np.arange(rows, dtype=np.int32), np.arange(-1, rows - 1, dtype=np.int32)
        last = np.array([rows - 1], np.int32)
        return _seconds(lambda: program.run(token, np.zeros(rows, np.int32), parent, last, [cache]))

    run(CONTEXT)
    cache.commit(np.arange(CONTEXT, dtype=np.int32))
    return lambda: run(1)


def _seconds(run: Callable[[], object]) -> float:
    started = time.process_time()
    run()
    return time.process_time() - started


if __name__ == "__main__":
    quantized: list[Format] = [name for name in WEIGHT_FORMATS if name not in FLOAT_FORMATS + SCALED_FORMATS]
    asked = sys.argv[1:] or [cpu.instruction_sets()[0]]
    main(asked[0], asked[1:] or quantized)  # type: ignore[arg-type]
