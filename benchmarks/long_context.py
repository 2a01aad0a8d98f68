"""Cost of a long context: passes over 1 to 8 rows, steps of the MTP drafter, and what they make of an acceptance rate.

usage: python -m benchmarks.long_context MODEL [--contexts 128,8192,32768,131072] [--rounds 7] [--prefill]
       [--acceptance 0.7] [--instruction-set NAME]
MODEL is a file or a published size, such as E2B: then in Q4_0, with one number in every weight, and with its drafter.
The caches are filled without computing anything (all keys are zero, which costs attention the same); --prefill also
computes a prompt of each length. Bound: a row reads the keys and values of all full layers, so time
grows by their bytes over the memory's bandwidth; the rows of one sequence share each read.

The first table has passes, in brackets what `outrider plan` predicts from the two numbers of the machine, measured in
the same turns, and memory beside the estimate of `outrider inspect`. The second has a step of the drafter, its share of
a pass over one row, and the best draft length of at most 7 with its speed-up, if a drafted token whose predecessors
were accepted is accepted with the chance --acceptance: a round of K emits 1 + a + ... + a^K tokens in K steps and a
pass over 1 + K rows, as measured.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from outrider.assembly import cpu_drafter, cpu_target
from outrider.backends import cpu
from outrider.cache import cache_bytes
from outrider.checkpoints import AssistantConfig, ModelConfig, Tensor, open_checkpoint
from outrider.checkpoints.checkpoint import TOKEN_ORDERING
from outrider.cores import cores
from outrider.drafters.mtp import MtpDrafter
from outrider.engine.prefill import PREFILL_CHUNK
from outrider.engine.target import Target, chain
from outrider.models.gemma import kv_layers
from outrider.quant import WeightStore
from outrider.roofline.cost import pass_seconds
from outrider.roofline.measured import Machine
from outrider.roofline.sizes import SIZES, published_size
from outrider.roofline.speedup import expected_tokens
from outrider.roofline.work import target_work
from outrider.speculation.costs import VerifyCost

ROWS = (1, 2, 4, 8)
STEPS = 4


class Bench:
    """One model with one format of keys and values, and its drafter if there is one."""

    def __init__(
        self,
        config: ModelConfig,
        weights: WeightStore,
        drafter: tuple[AssistantConfig, WeightStore] | None,
        pool: cpu.ThreadPool,
        kv_format: cpu.KvFormat,
    ) -> None:
        self.kv_format, self.pages = kv_format, cpu.KvPages(cpu.kv_shapes(kv_layers(config)), kv_format)
        self.target = Target(cpu_target(config, weights, pool, max_rows=PREFILL_CHUNK, kv_format=kv_format))
        self.drafter: MtpDrafter | None = None
        if drafter is not None:
            recorded = cpu_drafter(config, weights, *drafter, pool, max_rows=1, kv_format=kv_format)
            self.drafter = MtpDrafter(recorded, self.target.vocabulary)
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

    def round(self, cache: cpu.KvCache, rows: int) -> tuple[float, list[float]]:
        """Seconds of a pass, and of the drafter's steps after it, as decoding has them: the pass swept the caches."""
        passed, steps = self.verify(cache, rows), []
        for step in range(STEPS if self.drafter is not None else 0):
            assert self.drafter is not None
            started = time.perf_counter()
            self.drafter._step([(step, cache)])
            steps.append(time.perf_counter() - started)
        return passed, steps

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


Tensors = Mapping[str, Tensor]


def opened(model: str) -> tuple[ModelConfig, Tensors, tuple[AssistantConfig, Tensors] | None]:
    """Config and tensors of a file, or of a published size and its drafter."""
    if model not in SIZES:
        checkpoint = open_checkpoint(model)
        assert isinstance(checkpoint.config, ModelConfig)
        return checkpoint.config, checkpoint.tensors, None
    size = published_size(model, "Q4_0")
    return size.config, filled(size.tensors), (size.drafter_config, filled(size.drafter_tensors))


def filled(tensors: Tensors) -> Tensors:
    """With one number in every weight, and a drafter's tokens in their order."""
    fill = np.full(max(tensor.nbytes for tensor in tensors.values()), 0x3C, np.uint8)
    stored = {name: replace(tensor, stored=fill[: tensor.nbytes]) for name, tensor in tensors.items()}
    if (ordering := tensors.get(TOKEN_ORDERING)) is not None:
        in_order = np.arange(ordering.shape[0], dtype=np.int32)
        stored[TOKEN_ORDERING] = replace(ordering, stored=in_order.view(np.uint8))
    return stored


def best_draft(curve: list[float], step: float, acceptance: float) -> tuple[int, float]:
    """The best draft length and its speed-up over plain decoding.

    Args:
        curve: seconds of passes over `ROWS`.
        step: seconds of one step of the drafter.
    """
    cost = VerifyCost(list(ROWS), curve)
    by_length = {
        drafts: expected_tokens(acceptance, drafts) * curve[0] / (cost(1 + drafts) + drafts * step)
        for drafts in range(ROWS[-1])
    }
    best = max(by_length, key=by_length.__getitem__)
    return best, by_length[best]


def own_memory() -> int:
    """Bytes of memory that belong to this process alone."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--contexts", default="128,8192,32768,131072")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--acceptance", type=float, default=0.7)
    parser.add_argument("--prefill", action="store_true")
    parser.add_argument("--instruction-set", default=cpu.instruction_set(), choices=cpu.instruction_sets())
    arguments = parser.parse_args()
    cpu.choose_instruction_set(arguments.instruction_set)
    config, tensors, own = opened(arguments.model)
    pool = cpu.ThreadPool(cores().threads)
    weights, work = WeightStore(tensors, pool), target_work(tensors, config)
    drafter = None if own is None else (own[0], WeightStore(own[1], pool))
    machine, samples = Machine(work.main_format, pool.size), list[tuple[float, float]]()
    contexts = [c for c in map(int, arguments.contexts.split(",")) if c <= config.context_length]
    print(f"{arguments.model}, {pool.size} threads, {cpu.instruction_set()}")
    benches = [Bench(config, weights, drafter, pool, kv_format) for kv_format in ("float16", "int8")]
    caches: dict[tuple[Bench, int], cpu.KvCache] = {}
    grown: dict[tuple[Bench, int], int] = {}
    for bench in benches:
        for context in contexts:
            before = own_memory()
            caches[bench, context] = bench.filled(context)
            grown[bench, context] = own_memory() - before
    taken: dict[tuple[Bench, int, int], list[float]] = {(*key, rows): [] for key in caches for rows in ROWS}
    drafted: dict[tuple[Bench, int], list[float]] = {key: [] for key in caches}
    for turn in range(arguments.rounds + 1):
        sample = machine.sample()
        if turn:  # the first touches everything
            samples.append(sample)
        for (bench, context, rows), times in taken.items():
            seconds, steps = bench.round(caches[bench, context], rows)
            if turn:
                times.append(seconds)
                drafted[bench, context] += steps
    on = machine.hardware(samples)
    print(f"memory {on.bytes_per_second / 1e9:.1f} GB/s, {on.multiply_adds_per_second / 1e9:.0f} G multiply-adds/s")
    header = " ".join(f"{f'{rows} rows (plan)':>19}" for rows in ROWS)
    print(f"{'keys, values':>12} {'context':>8} {header} {'memory':>10} {'by inspect':>13}")
    curves = {key: [median(taken[(*key, rows)]) for rows in ROWS] for key in caches}
    for (bench, context), curve in curves.items():
        load: dict[str, Any] = {"context": context, "kv_format": bench.kv_format}
        planned = [pass_seconds(work, on, rows=rows, **load) for rows in ROWS]
        passes = " ".join(f"{1e3 * of:>6.1f} ms ({1e3 * by:>5.1f})" for of, by in zip(curve, planned, strict=True))
        inspected = cache_bytes(kv_layers(config), context, PREFILL_CHUNK, bench.kv_format) / 1e6
        memory = f"{grown[bench, context] / 1e6:>7.1f} MB {inspected:>10.1f} MB"
        print(f"{bench.kv_format:>12} {context:>8} {passes} {memory}", flush=True)
    print(f"{'keys, values':>12} {'context':>8} {'draft step':>10} {'of a pass':>9}   at {arguments.acceptance:g}")
    for (bench, context), curve in curves.items():
        step = median(drafted[bench, context]) if drafted[bench, context] else 0.0
        drafts, speedup = best_draft(curve, step, arguments.acceptance)
        line = f"{bench.kv_format:>12} {context:>8} {1e3 * step:>7.2f} ms {step / curve[0]:>8.1%}"
        print(f"{line}   {speedup:.2f} times plain decoding, {drafts} drafted", flush=True)
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
