"""Plain decoding at E2B's shape: the formats of Google's QAT mobile release against Q4_0, in turns.

usage: python -m benchmarks.mobile_decode [--rounds 15] [--instruction-set avx2]
Random weights of the true shapes in memory (2.2 GB; the tables of which a pass gathers one row are zeros). A turn is
the lower quartile of some passes over one row at context 128. Bound: a pass reads every matrix once, so the ratio is at
most that of the bytes, and less by what does not depend on the format.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import geometric_mean, quantiles

import numpy as np

from outrider.arrays import Bytes
from outrider.assembly import cpu_target
from outrider.backends import cpu
from outrider.backends.cpu.weights import WeightStore
from outrider.bench.interleave import estimate, interleaved
from outrider.checkpoints.checkpoint import INTEGER_FORMATS, Format, GroupScales, Tensor, bytes_as
from outrider.checkpoints.config import ModelConfig
from outrider.checkpoints.hf.config import hf_config
from outrider.checkpoints.settings import Settings
from outrider.checkpoints.tensors import EMBEDDING, OWN_HEAD, STATIC_SCALES
from outrider.checkpoints.traffic import weight_traffic
from outrider.checkpoints.validate import expected_shapes
from outrider.cores import cores
from outrider.engine.target import Target, chain
from outrider.models.gemma import kv_layers

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

_CONTEXT, _PASSES = 128, 8
_PER_LAYER = "embed_tokens_per_layer.weight"
_DENSE = "per_layer_model_projection.weight"
_OWN_KV_LAYERS = 15


def mobile_format(name: str) -> Format:
    """As in the release."""
    if name in (EMBEDDING, OWN_HEAD) or (".mlp." in name and int(name.split(".")[1]) >= _OWN_KV_LAYERS):
        return "I2"
    if name == _DENSE:
        return "BF16"
    return "I8" if ".per_layer_" in name else "I4"


def stored_bytes(format: Format, size: int, pool: Bytes | None) -> Bytes:
    """Codes out of the pool, with sane scales in blocks; or zeros, which take no memory."""
    if pool is None:
        return np.zeros(size, np.uint8)
    if format == "BF16":
        return np.full(size // 2, 0x3C80, np.uint16).view(np.uint8)
    stored: Bytes = np.resize(pool, size)
    if format == "Q4_0":
        stored.reshape(-1, 18)[:, :2] = np.array([0.02 / 4.64], np.float16).view(np.uint8)
    return stored


def tensors_of(config: ModelConfig, *, mobile: bool) -> Iterator[Tensor]:
    """Random weights in Q4_0, or `mobile` ones: a head of its own, and static scales for activations of integers."""
    rng = np.random.default_rng(0)
    pool = rng.integers(0, 256, 1 << 22, np.uint8)
    for name, shape in expected_shapes(config, untied=mobile).items():
        if len(shape) == 1:
            yield Tensor(name, "F32", shape, np.ones(shape, np.float32).view(np.uint8))
            continue
        format: Format = mobile_format(name) if mobile else "Q4_0"
        gathered = name == _PER_LAYER or (mobile and name == EMBEDDING)
        stored = partial(stored_bytes, format, bytes_as(shape, format), None if gathered else pool)
        groups = len(config.layers) if name == _PER_LAYER else 1
        scales = GroupScales(np.full((shape[0], groups), 0.02, np.float32)) if format in INTEGER_FORMATS else None
        yield Tensor(name, format, shape, stored, scales)
        if scales and not gathered:
            for part in STATIC_SCALES:
                static_name = f"{name.removesuffix('.weight')}.{part}"
                yield Tensor(static_name, "F32", (1,), np.full(1, 0.03, np.float32).view(np.uint8))


def timed(config: ModelConfig, tensors: dict[str, Tensor], pool: cpu.ThreadPool) -> Callable[[], float]:
    """A turn: seconds of a pass."""
    forward = cpu_target(config, WeightStore(tensors, pool), pool, max_rows=_CONTEXT, kv_format="float16")
    pages = cpu.KvPages(cpu.kv_shapes(kv_layers(config)), "float16")
    target, cache = Target(forward), cpu.KvCache(pages, 512, _CONTEXT)
    context = list(range(_CONTEXT))
    target.run([chain(cache, context, [_CONTEXT - 1])])
    cache.commit(np.arange(_CONTEXT, dtype=np.int32))

    def turn() -> float:
        seconds = []
        for number in range(_PASSES + 1):
            started = time.perf_counter()
            target.run([chain(cache, [number], [0])])
            seconds.append(time.perf_counter() - started)
        return quantiles(seconds[1:])[0]

    return turn


def main() -> None:
    """Prints milliseconds a pass and bytes a token of both, and the speed-up with its interval."""
    from published_configs import PUBLISHED

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=cores().threads)
    parser.add_argument("--instruction-set", default=cpu.instruction_set(), choices=cpu.instruction_sets())
    arguments = parser.parse_args()
    cpu.choose_instruction_set(arguments.instruction_set)
    config = hf_config(Settings(PUBLISHED["gemma-4-E2B-it"][0], Path("config.json")), Settings({}, Path()))
    assert isinstance(config, ModelConfig)
    pool, turns = cpu.ThreadPool(arguments.threads), {}
    for arm in ("Q4_0", "mobile"):
        tensors = {tensor.name: tensor for tensor in tensors_of(config, mobile=arm == "mobile")}
        print(f"{arm}: {weight_traffic(tensors, config).per_token / 1e9:.3f} GB a token", flush=True)
        turns[arm] = timed(config, tensors, pool)
        del tensors
    spent = interleaved(turns, arguments.rounds)
    for arm, seconds in spent.items():
        print(f"{arm}: {1e3 * geometric_mean(seconds):.2f} ms a pass, {1e3 * min(seconds):.2f} at best")
    ratio, (low, high) = estimate([[slow / fast] for slow, fast in zip(spent["Q4_0"], spent["mobile"], strict=True)])
    print(f"mobile is {ratio:.2f} times as fast ({low:.2f} to {high:.2f}; {arguments.instruction_set})")


if __name__ == "__main__":
    main()
