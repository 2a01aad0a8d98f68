"""A pass over 4 rows with two LoRA adapters in it, as a multiple of one without, at E2B's true shape in Q4_0.

    python -m benchmarks.adapter_passes [INSTRUCTION_SET]

Both adapters have rank 16 on all projections of the layers, in BF16 and then in F32. Two sequences of two rows name an
adapter each. One thread, by its processor time, in interleaved pairs; the fastest of 3 passes counts. The weights are
made in memory, 3 GB. Bound: the pass reads the adapters' bytes too ("bytes": as a multiple of the model's).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from outrider.arrays import Ints
from outrider.assembly import cpu_target
from outrider.backends import cpu
from outrider.backends.cpu.weights import WeightStore
from outrider.bench.interleave import estimate, interleaved
from outrider.checkpoints import Format, ModelConfig, Tensor
from outrider.checkpoints.adapters import Adapter, LowRank
from outrider.checkpoints.validate import unused_tensors
from outrider.models.gemma import kv_layers
from outrider.roofline.sizes import published_size
from outrider.roofline.work import target_work

CONTEXT, RANK, SEQUENCES, DRAFTED, ROUNDS, PASSES = 128, 16, 2, 2, 15, 3


def main(instruction_set: str) -> None:
    """Prints a line for each format of the adapters."""
    cpu.choose_instruction_set(instruction_set)
    size = published_size("E2B", "Q4_0")
    model = target_work(size.tensors, size.config).bytes_per_token
    pool = cpu.ThreadPool(1)
    weights = WeightStore(_filled(size.tensors), pool)
    formats: tuple[Format, ...] = ("BF16", "F32")
    print(f"{instruction_set:11} adapters GB  bytes  pass ms  cost (95 % interval)")
    for format in formats:
        adapters = [_adapter(size.tensors, size.config, format)] * SEQUENCES
        read = SEQUENCES * sum(part.a.nbytes + part.b.nbytes for part in adapters[0].low_rank.values())
        spent = interleaved(_turns(size.config, weights, pool, adapters), ROUNDS)
        pairs = [adapted / plain for adapted, plain in zip(spent[True], spent[False], strict=True)]
        cost, (low, high) = estimate([[ratio] for ratio in pairs])
        milliseconds = 1000 * float(np.median(spent[True]))
        figures = (
            f"{read / 1e9:11.3f} {1 + read / model:6.2f} {milliseconds:8.1f}  {cost:.2f} ({low:.2f} to {high:.2f})"
        )
        print(f"{format:11} {figures}", flush=True)


def _filled(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same with weights: a byte that is a small number in every scale."""
    fill = np.full(max(tensor.nbytes for tensor in tensors.values()), 0x3C, np.uint8)
    return {name: replace(tensor, stored=fill[: tensor.nbytes]) for name, tensor in tensors.items()}


def _adapter(tensors: Mapping[str, Tensor], config: ModelConfig, format: Format) -> Adapter:
    unused = unused_tensors(config)
    low_rank = {
        name: LowRank(_random(format, (RANK, tensor.shape[1])), _random(format, (tensor.shape[0], RANK)), 1.0)
        for name, tensor in tensors.items()
        if name.startswith("layers.") and name.endswith("_proj.weight") and name not in unused
    }
    return Adapter(Path(), (), low_rank, 0)


def _random(format: Format, shape: tuple[int, int]) -> Tensor:
    """Values that BF16 does not hold, unless that is the format: it would replace F32 otherwise."""
    values = np.random.default_rng(0).normal(0.0, 0.01, shape).astype(np.float32)
    bits = values.view(np.uint32)
    stored = (bits >> 16).astype(np.uint16).view(np.uint8) if format == "BF16" else values.view(np.uint8)
    return Tensor("", format, shape, stored.reshape(-1))


def _turns(
    config: ModelConfig, weights: WeightStore, pool: cpu.ThreadPool, adapters: list[Adapter]
) -> dict[bool, Callable[[], float]]:
    """By whether rows name adapters, a function that runs some passes and returns the seconds of the fastest."""
    executor = cpu_target(config, weights, pool, max_rows=CONTEXT, kv_format="float16", adapters=adapters).program
    shapes = cpu.kv_shapes(kv_layers(config))
    pages = cpu.KvPages(shapes, "float16")
    caches = [cpu.KvCache(pages, 2 * CONTEXT, CONTEXT) for _ in range(SEQUENCES)]

    def seconds(caches: list[cpu.KvCache], rows: int, adapter: Ints | None) -> float:
        """Of a pass over so many rows of each sequence."""
        token = np.arange(rows * len(caches), dtype=np.int32)
        parent = np.where(token % rows == 0, -1, token - 1).astype(np.int32)
        started = time.process_time()
        executor.run(token, token // rows, parent, token[rows - 1 :: rows], caches, adapter=adapter)
        return time.process_time() - started

    for cache in caches:
        seconds([cache], CONTEXT, None)
        cache.commit(np.arange(CONTEXT, dtype=np.int32))
    named = np.repeat(np.arange(SEQUENCES, dtype=np.int32), DRAFTED)
    return {
        adapts: lambda given=given: min(seconds(caches, DRAFTED, given) for _ in range(PASSES))  # type: ignore[misc]
        for adapts, given in ((False, None), (True, named))
    }


if __name__ == "__main__":
    main((sys.argv[1:] or [cpu.instruction_sets()[0]])[0])
