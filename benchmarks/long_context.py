"""Cost of a long context: time of a pass over 1, 4 and 8 rows, and memory against the estimate of `outrider inspect`.

usage: python -m benchmarks.long_context MODEL [--contexts 8192,32768,131072] [--rounds 7] [--prefill]
The caches are filled without computing anything (all keys are zero, which costs attention the same); --prefill also
computes a prompt of each length. Bound: a row reads the keys and values of all full layers, so time
grows by their bytes over the memory's bandwidth; the rows of one sequence share each read.
"""

from __future__ import annotations

import argparse
import resource
import time
from pathlib import Path
from statistics import median

import numpy as np

from outrider.assembly import cpu_target
from outrider.backends import cpu
from outrider.cache import cache_bytes
from outrider.checkpoints import ModelConfig, open_checkpoint
from outrider.cores import cores
from outrider.engine.target import Target, chain
from outrider.loading import PREFILL_CHUNK
from outrider.models.gemma import kv_layers
from outrider.quant import WeightStore

ROWS = (1, 4, 8)


class Bench:
    """One model with one format of keys and values."""

    def __init__(
        self, config: ModelConfig, weights: WeightStore, pool: cpu.ThreadPool, kv_format: cpu.KvFormat
    ) -> None:
        self.config, self.kv_format = config, kv_format
        self.target = Target(cpu_target(config, weights, pool, max_rows=PREFILL_CHUNK, kv_format=kv_format))
        # Stores a key and a value in every layer, and computes nothing.
        self.filler = cpu.Program(PREFILL_CHUNK, cpu.kv_shapes(kv_layers(config)), kv_format, pool)
        self.filler.gather(weights.table("embed_tokens.weight"), 1.0, self.filler.buffer("x", config.hidden_size))
        for number, shape in enumerate(cpu.kv_shapes(kv_layers(config))):
            width = shape.kv_heads * shape.head_dim
            key, value = (self.filler.buffer(f"{what} {number}", width) for what in ("key", "value"))
            self.filler.store_kv(key, value, number)

    def cache(self, length: int) -> cpu.KvCache:
        """An empty cache with room for `length` positions."""
        pages = cpu.KvPages(cpu.kv_shapes(kv_layers(self.config)), self.kv_format)
        return cpu.KvCache(pages, length + PREFILL_CHUNK, PREFILL_CHUNK)

    def filled(self, length: int) -> cpu.KvCache:
        """A cache of `length` positions."""
        cache = self.cache(length)
        while cache.length < length:
            rows = min(PREFILL_CHUNK, length - cache.length)
            zeros, parents = np.zeros(rows, np.int32), np.arange(-1, rows - 1, dtype=np.int32)
            self.filler.run(zeros, zeros, parents, np.zeros(0, np.int32), [cache])
            cache.commit(np.arange(rows, dtype=np.int32))
        return cache

    def verify(self, cache: cpu.KvCache, rows: int) -> float:
        """Seconds of a pass."""
        return self.target.run([chain(cache, self._tokens(0, rows), list(range(rows)))]).seconds

    def prefill(self, length: int) -> float:
        """Seconds to compute a prompt."""
        cache, started = self.cache(length), time.perf_counter()
        while cache.length < length:
            rows = min(PREFILL_CHUNK, length - cache.length)
            self.target.run([chain(cache, self._tokens(cache.length, rows), [rows - 1])])
            cache.commit(np.arange(rows, dtype=np.int32))
        return time.perf_counter() - started

    def _tokens(self, begin: int, count: int) -> list[int]:
        return [(7919 * (begin + i) + 17) % self.target.vocabulary for i in range(count)]


def own_memory() -> int:
    """Bytes of memory that belong to this process alone."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--contexts", default="8192,32768,131072")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--prefill", action="store_true")
    arguments = parser.parse_args()
    checkpoint, pool = open_checkpoint(arguments.model), cpu.ThreadPool(cores().threads)
    config, weights = checkpoint.config, WeightStore(checkpoint.tensors, pool)
    assert isinstance(config, ModelConfig)
    contexts = [0, *(c for c in map(int, arguments.contexts.split(",")) if c <= config.context_length)]
    print(f"{checkpoint.path.name}, {pool.size} threads, {cpu.instruction_set()}")
    header = " ".join(f"{f'{rows} rows':>9}" for rows in ROWS)
    print(f"{'keys, values':>12} {'context':>8} {header} {'memory':>10} {'by inspect':>16}")
    benches = [Bench(config, weights, pool, kv_format) for kv_format in ("float16", "int8")]
    caches: dict[tuple[Bench, int], cpu.KvCache] = {}
    grown: dict[tuple[Bench, int], int] = {}
    for bench in benches:
        for context in contexts:
            before = own_memory()
            caches[bench, context] = bench.filled(context)
            grown[bench, context] = own_memory() - before
    taken: dict[tuple[Bench, int, int], list[float]] = {(*key, rows): [] for key in caches for rows in ROWS}
    for turn in range(arguments.rounds + 1):
        for (bench, context, rows), times in taken.items():
            seconds = bench.verify(caches[bench, context], rows)
            if turn:  # the first touches everything
                times.append(seconds)
    for bench, context in caches:
        medians = " ".join(f"{1e3 * median(taken[bench, context, rows]):>6.1f} ms" for rows in ROWS)
        memory = grown[bench, context] / 1e6
        inspected = cache_bytes(kv_layers(config), context, PREFILL_CHUNK, bench.kv_format) / 1e6
        line = f"{bench.kv_format:>12} {context:>8} {medians} {memory:>7.1f} MB"
        print(f"{line} {inspected:>13.1f} MB", flush=True)
    for bench in benches if arguments.prefill else ():
        for context in contexts[1:]:
            seconds = bench.prefill(context)
            print(
                f"{bench.kv_format:>12} {context:>8} prefill {seconds:.1f} s, {context / seconds:.0f} tokens/s",
                flush=True,
            )
    print(f"largest resident size {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB")


if __name__ == "__main__":
    main()
