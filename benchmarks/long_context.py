"""Cost of a long context: time of a pass over 1, 4 and 8 rows, and memory against the estimate of `outrider inspect`.

usage: python -m benchmarks.long_context MODEL [--contexts 128,8192,32768,131072] [--rounds 7] [--prefill]
       [--instruction-set NAME]
MODEL is a file or a published size, such as E2B: then in Q4_0, with one number in every weight.
The caches are filled without computing anything (all keys are zero, which costs attention the same); --prefill also
computes a prompt of each length. Bound: a row reads the keys and values of all full layers, so time
grows by their bytes over the memory's bandwidth; the rows of one sequence share each read.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np

from outrider.assembly import cpu_target
from outrider.backends import cpu
from outrider.cache import cache_bytes
from outrider.checkpoints import ModelConfig, Tensor, open_checkpoint
from outrider.cores import cores
from outrider.engine.target import Target, chain
from outrider.loading import PREFILL_CHUNK
from outrider.models.gemma import kv_layers
from outrider.quant import WeightStore
from outrider.roofline.sizes import SIZES, published_size

ROWS = (1, 4, 8)


class Bench:
    """One model with one format of keys and values."""

    def __init__(
        self, config: ModelConfig, weights: WeightStore, pool: cpu.ThreadPool, kv_format: cpu.KvFormat
    ) -> None:
        self.kv_format, self.pages = kv_format, cpu.KvPages(cpu.kv_shapes(kv_layers(config)), kv_format)
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
        return cpu.KvCache(self.pages, length + PREFILL_CHUNK, PREFILL_CHUNK)

    def filled(self, length: int) -> cpu.KvCache:
        """A cache of `length` positions."""
        cache = self.cache(length)
        while cache.length < length:
            rows = min(PREFILL_CHUNK, length - cache.length)
            zeros, parents = np.zeros(rows, np.int32), np.arange(-1, rows - 1, dtype=np.int32)
            self.filler.run(zeros, zeros, parents, np.zeros(0, np.int32), [cache])
            cache.commit(np.arange(rows, dtype=np.int32))
            self._drop(cache)
        return cache

    def _drop(self, cache: cpu.KvCache) -> None:
        """Releases what no window reaches, as the engine does."""
        for group, window in enumerate(self.pages.windows):
            for index in range(max(cache.length - window, 0) // cpu.PAGE_POSITIONS if window else 0):
                if cache.page(group, index) is not None:
                    cache.drop(group, index)

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
            self._drop(cache)
        return time.perf_counter() - started

    def _tokens(self, begin: int, count: int) -> list[int]:
        return [(7919 * (begin + i) + 17) % self.target.vocabulary for i in range(count)]


def opened(model: str) -> tuple[ModelConfig, Mapping[str, Tensor]]:
    """Config and tensors of a file or of a published size."""
    if model not in SIZES:
        checkpoint = open_checkpoint(model)
        assert isinstance(checkpoint.config, ModelConfig)
        return checkpoint.config, checkpoint.tensors
    size = published_size(model, "Q4_0")
    fill = np.full(max(tensor.nbytes for tensor in size.tensors.values()), 0x3C, np.uint8)
    return size.config, {name: replace(tensor, stored=fill[: tensor.nbytes]) for name, tensor in size.tensors.items()}


def own_memory() -> int:
    """Bytes of memory that belong to this process alone."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--contexts", default="128,8192,32768,131072")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--prefill", action="store_true")
    parser.add_argument("--instruction-set", default=cpu.instruction_set(), choices=cpu.instruction_sets())
    arguments = parser.parse_args()
    cpu.choose_instruction_set(arguments.instruction_set)
    config, tensors = opened(arguments.model)
    pool = cpu.ThreadPool(cores().threads)
    weights = WeightStore(tensors, pool)
    contexts = [c for c in map(int, arguments.contexts.split(",")) if c <= config.context_length]
    print(f"{arguments.model}, {pool.size} threads, {cpu.instruction_set()}")
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
        for context in contexts:
            seconds = bench.prefill(context)
            print(
                f"{bench.kv_format:>12} {context:>8} prefill {seconds:.1f} s, {context / seconds:.0f} tokens/s",
                flush=True,
            )
    print(f"largest resident size {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB")


if __name__ == "__main__":
    main()
