"""The native core: packed weights, the key-value cache, keyed sampling, and programs recorded as kernel calls.

Arrays go in and out as numpy arrays. The sources are in `csrc/`.
"""

from collections.abc import Iterable
from typing import Literal, get_args

from outrider.backends.cpu._native import (
    PAGE_POSITIONS,
    KvCache,
    KvPage,
    KvPages,
    KvShape,
    LowRank,
    Program,
    Sampler,
    Table,
    ThreadPool,
    Weight,
    built_instruction_sets,
    choose_instruction_set,
    dequantize,
    gumbel_noise,
    instruction_set,
    instruction_sets,
    likeliest,
    logsumexp,
    pack,
    philox4x32,
    quantize,
    table,
)
from outrider.program import KvLayer


def kv_shapes(layers: Iterable[KvLayer]) -> list[KvShape]:
    """The cache layers as the native core's `KvShape`."""
    return [KvShape(layer.kv_heads, layer.head_dim, layer.window) for layer in layers]


KvFormat = Literal["float32", "float16", "int8"]
"""Storage of keys and values. int8: 8-bit codes in layers of full attention, float16 in those with a window."""
KV_FORMATS: tuple[KvFormat, ...] = get_args(KvFormat)

__all__ = [
    "KV_FORMATS",
    "PAGE_POSITIONS",
    "KvCache",
    "KvFormat",
    "KvPage",
    "KvPages",
    "KvShape",
    "LowRank",
    "Program",
    "Sampler",
    "Table",
    "ThreadPool",
    "Weight",
    "built_instruction_sets",
    "choose_instruction_set",
    "dequantize",
    "gumbel_noise",
    "instruction_set",
    "instruction_sets",
    "kv_shapes",
    "likeliest",
    "logsumexp",
    "pack",
    "philox4x32",
    "quantize",
    "table",
]
