"""The native core: packed weights, the key-value cache, and recorded programs that replay a forward pass.

Everything above this package speaks to it in numpy arrays and never asks where arrays live.
"""

from outrider.kernels._native import (
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
    read_bandwidth,
    table,
)

__all__ = [
    "KvCache",
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
    "likeliest",
    "log_total",
    "pack",
    "philox4x32",
    "quantize",
    "read_bandwidth",
    "table",
]
