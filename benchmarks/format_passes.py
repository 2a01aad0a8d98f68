"""A pass over one row at E2B's true shape in each block format, as a multiple of reading its packed weights.

    python -m benchmarks.format_passes [INSTRUCTION_SET [FORMAT ...]]

The weights are made in memory, 1 to 3 GB. Reading is a sweep of float32 weights, in the turns of the passes.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from statistics import median

import numpy as np

from outrider.assembly import cpu_target
from outrider.backends import cpu
from outrider.backends.cpu.weights import WeightStore
from outrider.checkpoints import Format, ModelConfig, Tensor
from outrider.checkpoints.checkpoint import FLOAT_FORMATS, SCALED_FORMATS, WEIGHT_FORMATS
from outrider.models.gemma import kv_layers
from outrider.roofline.measured import Machine
from outrider.roofline.sizes import published_size
from outrider.roofline.work import target_work

THREADS, CONTEXT, ROUNDS, PASSES = 2, 128, 9, 3


def main(instruction_set: str, formats: list[Format]) -> None:
    """Prints a line for each format."""
    cpu.choose_instruction_set(instruction_set)
    machine = Machine("F32", THREADS)
    print(f"{instruction_set:9} packed GB  pass ms  read ms  multiple")
    for weights in formats:
        size = published_size("E2B", weights)
        tensors = _filled(size.tensors)
        work = target_work(tensors, size.config)
        one_pass = _passes(tensors, size.config)
        seconds, reads = [], []
        for _ in range(ROUNDS):
            reads.append(machine.sample())
            seconds.append(median(one_pass() for _ in range(PASSES)))
        reading = [work.bytes_per_token / machine.hardware([read]).bytes_per_second for read in reads]
        multiple = median(taken / read for taken, read in zip(seconds, reading, strict=True))
        figures = work.bytes_per_token / 1e9, 1000 * median(seconds), 1000 * median(reading), multiple
        print(f"{weights:9} {figures[0]:9.3f} {figures[1]:8.1f} {figures[2]:8.1f} {figures[3]:9.2f}", flush=True)


def _filled(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same with weights: a byte that is a small number in every scale."""
    fill = np.full(max(tensor.nbytes for tensor in tensors.values()), 0x3C, np.uint8)
    return {name: replace(tensor, stored=fill[: tensor.nbytes]) for name, tensor in tensors.items()}


def _passes(tensors: Mapping[str, Tensor], config: ModelConfig):
    """A function that runs a pass over one row and returns its seconds."""
    pool = cpu.ThreadPool(THREADS)
    program = cpu_target(config, WeightStore(tensors, pool), pool, max_rows=CONTEXT, kv_format="float16").program
    cache = cpu.KvCache(cpu.kv_shapes(kv_layers(config)), 2 * CONTEXT, CONTEXT, "float16")

    def run(rows: int) -> float:
        token, parent = np.arange(rows, dtype=np.int32), np.arange(-1, rows - 1, dtype=np.int32)
        started = time.perf_counter()
        program.run(token, np.zeros(rows, np.int32), parent, np.array([rows - 1], np.int32), [cache])
        return time.perf_counter() - started

    run(CONTEXT)
    cache.commit(np.arange(CONTEXT, dtype=np.int32))
    return lambda: run(1)


if __name__ == "__main__":
    quantized: list[Format] = [name for name in WEIGHT_FORMATS if name not in FLOAT_FORMATS + SCALED_FORMATS]
    asked = sys.argv[1:] or [cpu.instruction_sets()[0]]
    main(asked[0], asked[1:] or quantized)  # type: ignore[arg-type]
