"""AWQ's "gemm" layout: 4-bit codes and zero points, stored transposed.

A matrix of (rows, columns) is stored as qweight, int32 (columns, rows / 8); qzeros, int32 (groups, rows / 8); scales,
(groups, rows). A word holds eight rows, those of `_ROWS` from its lowest four bits up.
Source: casper-hansen/AutoAWQ, awq/utils/packing_utils.py.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from outrider.arrays import Bytes, Ints
from outrider.checkpoints.hf.quantized.integers import (
    Integers,
    even_columns,
    group_count,
    with_even_groups,
)
from outrider.checkpoints.hf.quantized.modules import transformers_modules
from outrider.checkpoints.hf.quantized.parts import INSTEAD, Module, Parts
from outrider.checkpoints.hf.quantized.scheme import Matrix, Reader, Scheme
from outrider.checkpoints.hf.safetensors_file import StoredTensor
from outrider.checkpoints.settings import MAX_SIZE, Settings

_ROWS = (0, 2, 4, 6, 1, 3, 5, 7)
_BITS = 4
_ZERO = 8
_DESCRIPTIVE = ("quant_method", "backend", "exllama_config", "fuse_max_seq_len", "modules_to_fuse", "do_fuse", "ignore")


def awq(config: Settings) -> Scheme:
    """The scheme of a config of AutoAWQ or transformers' AwqConfig.

    Raises:
        CheckpointError: it has another layout or width.
    """
    layout = config.text("version", config.text("format", "gemm")).lower()
    if layout != "gemm":
        raise config.fault(f"has AWQ's layout {layout!r}, which is not supported", INSTEAD)
    bits = config.integer("bits", config.integer("w_bit", _BITS))
    if bits != _BITS:
        raise config.fault(f"has AWQ weights of {bits} bits, which is not supported", INSTEAD)
    group_size = config.integer("group_size", config.integer("q_group_size", 128, low=-1), low=-1, high=MAX_SIZE)
    has_zeros = config.flag("zero_point", True)
    names = config.texts("modules_to_not_convert") if config.has("modules_to_not_convert") else []
    left_out = transformers_modules(names, config)
    config.refuse_unread(_DESCRIPTIVE)
    layout_of = AwqLayout(group_size, has_zeros)

    def reader(module: Module) -> Reader | None:
        return None if module in left_out else layout_of.read

    return Scheme(reader, complete=False)


@dataclass(frozen=True)
class AwqLayout:
    """How the matrices are stored; without zero points, every code 8 stands for 0."""

    group_size: int
    has_zeros: bool

    def read(self, parts: Parts) -> Matrix:
        """The matrix in these parts."""
        stored = parts.matrix_of("qweight", "I32")
        columns, rows = stored.shape[0], stored.shape[1] * 8
        groups = group_count(parts, columns, self.group_size)
        scales = parts.scales("scales", (groups, rows))
        zeros = parts.scales("qzeros", (groups, rows // 8), dtypes=("I32",)) if self.has_zeros else None
        even_columns(parts, columns, _BITS)
        parts.finish()
        centred = zeros is None or bool((zeros.data == _ZERO * 0x11).all())
        matrix = Integers(
            parts=parts,
            shape=(rows, columns),
            bits=_BITS,
            codes=lambda: _codes(stored),
            scale=lambda: np.ascontiguousarray(parts.float32(scales).T),
            groups=groups,
            stored_scales=scales,
            zero=None if zeros is None or centred else lambda: _zero_points(zeros),
        )
        return with_even_groups(matrix, self.group_size)


def _codes(stored: StoredTensor) -> Bytes:
    """Packed codes of (rows, columns)."""
    words = np.ascontiguousarray(stored.data.view("<u4").reshape(stored.shape).T)
    out = np.empty((8 * len(words), words.shape[1] // 2), np.uint8)
    for place, row in enumerate(_ROWS):
        low, high = (words[:, side::2] >> np.uint32(4 * place) & np.uint32(15) for side in (0, 1))
        out[row::8] = low | high << np.uint32(4)
    return out.reshape(-1)


def _zero_points(stored: StoredTensor) -> Ints:
    """(rows, groups)."""
    words = stored.data.view("<u4").reshape(stored.shape).T
    out = np.empty((8 * len(words), words.shape[1]), np.int32)
    for place, row in enumerate(_ROWS):
        out[row::8] = words >> np.uint32(4 * place) & np.uint32(15)
    return out
