"""The native core: packed weights, the key-value cache, and recorded programs that replay a forward pass.

Everything above this package speaks to it in numpy arrays and never asks where arrays live.
"""

from collections.abc import Iterable
from typing import Literal, get_args

from outrider.backends.cpu._native import (
    KvCache,
    KvShape,
    Program,
    Sampler,
    Table,
    ThreadPool,
    Weight,
    choose_instruction_set,
    dequantize,
    gumbel_noise,
    instruction_set,
    instruction_sets,
    likeliest,
    log_total,
    pack,
    philox4x32,
    quantize,
    table,
)
from outrider.program import KvLayer


def kv_shapes(layers: Iterable[KvLayer]) -> list[KvShape]:
    """Cache layers as the core takes them."""
    return [KvShape(layer.kv_heads, layer.head_dim, layer.window) for layer in layers]


KvFormat = Literal["float32", "float16", "int8"]
"""How a cache keeps keys and values. int8: codes of one head at one position, and their scale."""
KV_FORMATS: tuple[KvFormat, ...] = get_args(KvFormat)

__all__ = [
    "KV_FORMATS",
    "KvCache",
    "KvFormat",
    "KvShape",
    "Program",
    "Sampler",
    "Table",
    "ThreadPool",
    "Weight",
    "choose_instruction_set",
    "dequantize",
    "gumbel_noise",
    "instruction_set",
    "instruction_sets",
    "kv_shapes",
    "likeliest",
    "log_total",
    "pack",
    "philox4x32",
    "quantize",
    "table",
]
