"""Passes at E2B's shape against the peak of the 256-bit byte products (vpdpbusd) of this processor.

    python -m benchmarks.byte_products [INSTRUCTION_SET ...]

One thread, by its processor time, the least of interleaved rounds: other programs slow it down only by what they share.
The peak is that of a loop of independent products in registers, which the C compiler `cc` builds. A pass over M rows
multiplies every weight M times, as all of them are output rows (a prefill leaves that out for most of its rows);
attention and the rest are not counted, but take time. Q4_0 weights, made in memory (1.5 GB).
"""

from __future__ import annotations

import ctypes
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from outrider.assembly import cpu_target
from outrider.backends import cpu
from outrider.backends.cpu.weights import WeightStore
from outrider.checkpoints import ModelConfig, Tensor
from outrider.models.gemma import kv_layers
from outrider.roofline.sizes import published_size
from outrider.roofline.work import target_work

MOST, ROWS, ROUNDS, PASSES, LOOPS = 512, (1, 4, 8, 512), 3, 5, 200_000
CHAINS, PRODUCTS = 12, 32  # sums in registers, and multiply-adds of an instruction
PEAK = "".join(f"%{{vex%}} vpdpbusd %%ymm15, %%ymm15, %%ymm{i}\\n" for i in range(CHAINS))
SOURCE = f"""
void peak(long n) {{
  __asm__ volatile("vpxor %%ymm15, %%ymm15, %%ymm15\\n 1: {PEAK} dec %0\\n jnz 1b\\n vzeroupper" : "+r"(n) :
                   : {", ".join(f'"xmm{i}"' for i in (*range(CHAINS), 15))});
}}
"""


def main(instruction_sets: list[str]) -> None:
    size = published_size("E2B", "Q4_0")
    run = passes(size.tensors, size.config)
    weights = sum(matrix.weights * matrix.touched(1) for matrix in target_work(size.tensors, size.config).matrices)
    peak = peak_loop()
    seconds: dict[tuple[str, int], list[float]] = {}
    peaks = []
    for _ in range(ROUNDS):
        for name in instruction_sets:
            cpu.choose_instruction_set(name)
            for rows in ROWS:
                for _ in range(1 if rows == MOST else PASSES):
                    seconds.setdefault((name, rows), []).append(timed(partial(run, rows)))
                    peaks.append(timed(partial(peak, LOOPS)))
    rate = LOOPS * CHAINS * PRODUCTS / min(peaks)
    print(f"peak {rate / 1e9:.1f} G multiply-adds/s; {weights / 1e9:.3f} G of them per row")
    for (name, rows), taken in seconds.items():
        reached = rows * weights / min(taken)
        figures = f"{1e3 * min(taken):8.1f} ms {reached / 1e9:6.1f} G/s, {rate / reached:5.2f} times the peak's time"
        print(f"{name:12} {rows:4} rows {figures}")


def passes(tensors: Mapping[str, Tensor], config: ModelConfig) -> Callable[[int], None]:
    """A function that runs a pass over some rows of a new sequence."""
    fill = np.full(max(tensor.nbytes for tensor in tensors.values()), 0x3C, np.uint8)
    filled = {name: replace(tensor, stored=fill[: tensor.nbytes]) for name, tensor in tensors.items()}
    pool = cpu.ThreadPool(1)
    program = cpu_target(config, WeightStore(filled, pool), pool, max_rows=MOST, kv_format="float16").program
    cache = cpu.KvCache(cpu.KvPages(cpu.kv_shapes(kv_layers(config)), "float16"), 2 * MOST, MOST)

    def run(rows: int) -> None:
        tokens, parents = np.arange(rows, dtype=np.int32), np.arange(-1, rows - 1, dtype=np.int32)
        program.run(tokens, np.zeros(rows, np.int32), parents, tokens, [cache])

    run(MOST)
    return run


def peak_loop() -> Callable[[int], object]:
    """A function that runs CHAINS products as often as its argument says."""
    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(folder, "peak.c"), Path(folder, "peak.so")
        source.write_text(SOURCE)
        subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", library, source], check=True)
        loop = ctypes.CDLL(str(library)).peak
    loop.argtypes = [ctypes.c_long]
    return loop


def timed(run: Callable[[], object]) -> float:
    """Seconds of this process."""
    started = time.process_time()
    run()
    return time.process_time() - started


if __name__ == "__main__":
    main(sys.argv[1:] or ["avx-vnni"])
