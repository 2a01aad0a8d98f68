"""GPTQ: codes of 2, 3, 4 or 8 bits, stored transposed.

A matrix of (rows, columns) is stored as qweight, int32 (columns * bits / 32, rows), dense along the columns; qzeros,
int32 (groups, rows * bits / 32), dense along the rows; scales, (groups, rows); and g_idx, the group of each column, in
order unless the columns were quantized in order of activation ("act-order"). Files of the first version store each zero
point less one. Source: ModelCloud/GPTQModel, gptqmodel/nn_modules/qlinear.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from outrider.arrays import Bytes, Ints
from outrider.checkpoints.hf.quantized.bits import unpacked
from outrider.checkpoints.hf.quantized.integers import (
    Integers,
    dense,
    even_columns,
    group_count,
    widened,
    with_even_groups,
)
from outrider.checkpoints.hf.quantized.modules import compiled, transformers_modules
from outrider.checkpoints.hf.quantized.parts import INSTEAD, Module, Parts
from outrider.checkpoints.hf.quantized.scheme import Matrix, Reader, Scheme
from outrider.checkpoints.hf.safetensors_file import StoredTensor
from outrider.checkpoints.settings import MAX_SIZE, Settings

BITS = (2, 3, 4, 8)
_VERSIONS = ("gptq", "gptq_v2")
# How the tool quantized, and which kernel it would choose.
_DESCRIPTIVE = """
    quant_method method true_sequential damp_percent damp_auto_increment static_groups meta lm_head pack_dtype backend
    model_name_or_path model_file_base_name tokenizer dataset model_seqlen block_name_to_quantize cache_block_outputs
    module_name_preceding_first_block modules_in_block_to_quantize batch_size pad_token_id max_input_length mse
    use_cuda_fp16 use_exllama exllama_config disable_exllama act_group_aware format_version quantizer pack_impl
    offload_to_disk actorder groupsize
    """.split()  # noqa: SIM905 (a list would take a line per word)
_DESCRIPTIVE_OF_MODULE = ("sym", "desc_act", "act_group_aware", "mse", "damp_percent", "damp_auto_increment")


def gptq(config: Settings) -> Scheme:
    """The scheme of a config of GPTQModel, AutoGPTQ or transformers' GPTQConfig.

    Raises:
        CheckpointError: it has another layout or width.
    """
    version = config.text("checkpoint_format", config.text("format", "gptq")).lower()
    if version not in _VERSIONS or config.flag("is_marlin_format", False):
        raise config.fault(f"has GPTQ's layout {version!r}, which is not supported", INSTEAD)
    base = GptqLayout(
        bits=_bits(config, 4),
        group_size=config.integer("group_size", 128, low=-1, high=MAX_SIZE),
        zero_offset=version == "gptq",
        desc_act=config.flag("desc_act", False),
    )
    config.skip("sym")
    names = config.texts("modules_to_not_convert") if config.has("modules_to_not_convert") else []
    left_out = transformers_modules(names, config)
    overrides = _overrides(config, base)
    config.refuse_unread(_DESCRIPTIVE)

    def reader(module: Module) -> Reader | None:
        if module in left_out:
            return None
        for matches, layout in overrides:
            if any(matches(name) for name in module.names):
                return layout.read if layout else None
        return base.read

    # Tools quantize the layers they know, and leave out others without a word.
    return Scheme(reader, complete=False)


@dataclass(frozen=True)
class GptqLayout:
    """How matrices are stored.

    Attributes:
        bits: of a code.
        group_size: columns that share a scale; -1 for whole rows.
        zero_offset: zero points are stored less one.
        desc_act: the columns were quantized in order of activation, so `g_idx` is needed.
    """

    bits: int
    group_size: int
    zero_offset: bool
    desc_act: bool

    def read(self, parts: Parts) -> Matrix:
        """The matrix in these parts."""
        stored = parts.matrix_of("qweight", "I32")
        rows, columns = stored.shape[1], stored.shape[0] * 32 // self.bits
        groups = group_count(parts, columns, self.group_size)
        if stored.shape[0] * 32 % self.bits or rows * self.bits % 32:
            raise parts.misfit("qweight", stored.shape, f"words of codes of {self.bits} bits")
        scales = parts.scales("scales", (groups, rows))
        zeros = parts.scales("qzeros", (groups, rows * self.bits // 32), dtypes=("I32",))
        group_of = self._group_of(parts, columns, groups)
        parts.finish()
        zero = self._zero_points(zeros)
        points = zero()  # a 128th of the matrix
        centred = bool((points == 1 << (self.bits - 1)).all())
        if self.bits in (2, 4, 8):
            codes, width = dense(_turned(stored), self.bits), self.bits
        else:
            read = lambda: unpacked(_turned(stored)(), rows, columns, self.bits)  # noqa: E731
            codes, width = widened(read, self.bits, centred=centred)
        even_columns(parts, columns, width)
        matrix = Integers(
            parts=parts,
            shape=(rows, columns),
            bits=width,
            codes=codes,
            scale=lambda: np.ascontiguousarray(parts.float32(scales).T),
            groups=groups,
            stored_scales=scales,
            zero=None if centred else lambda: np.ascontiguousarray(zero().T),
            zero_fits=bool(points.max() <= 0xFF),
            group_of=group_of,
        )
        return with_even_groups(matrix, self.group_size)

    def _zero_points(self, stored: StoredTensor) -> Callable[[], Ints]:
        """Returns (groups, rows)."""
        groups, rows = stored.shape[0], stored.shape[1] * 32 // self.bits

        def zero() -> Ints:
            return unpacked(stored.data, groups, rows, self.bits).astype(np.int32) + np.int32(self.zero_offset)

        return zero

    def _group_of(self, parts: Parts, columns: int, groups: int) -> Ints | None:
        if "g_idx" not in parts:
            if self.desc_act:
                raise parts.fault(f"stores {parts.matrix} in order of activation (desc_act), but without g_idx")
            return None
        order: Ints = parts.scales("g_idx", (columns,), dtypes=("I32",)).data.view("<i4")
        if order.min() < 0 or order.max() >= groups:
            raise parts.fault(f"puts columns of {parts.matrix} into groups that it does not have (g_idx)")
        size = columns if self.group_size == -1 else self.group_size
        in_order = np.array_equal(order, np.arange(columns) // size)
        return None if in_order else order


def _turned(stored: StoredTensor) -> Callable[[], Bytes]:
    """Returns the words column by column: rows of dense codes."""
    return lambda: np.ascontiguousarray(stored.data.view("<i4").reshape(stored.shape).T).view(np.uint8).reshape(-1)


def _overrides(config: Settings, base: GptqLayout) -> list[tuple[Callable[[str], object], GptqLayout | None]]:
    """GPTQModel's `dynamic`: a pattern for names ("-:" in front: not quantized) -> settings of these modules."""
    found: list[tuple[Callable[[str], object], GptqLayout | None]] = []
    if not config.has("dynamic"):
        return found
    dynamic = config.section("dynamic")
    for key in dynamic.present():
        matches = compiled(key.removeprefix("-:").removeprefix("+:"), config).match
        if key.startswith("-:"):
            dynamic.skip(key)
            found.append((matches, None))
            continue
        module = dynamic.section(key)
        layout = replace(
            base,
            bits=_bits(module, base.bits),
            group_size=module.integer("group_size", base.group_size, low=-1, high=MAX_SIZE),
            desc_act=module.flag("desc_act", base.desc_act),
        )
        module.refuse_unread(_DESCRIPTIVE_OF_MODULE)
        found.append((matches, layout))
    return found


def _bits(config: Settings, default: Any) -> int:
    bits = config.integer("bits", default)
    if bits not in BITS:
        raise config.fault(f"has GPTQ weights of {bits} bits, which is not supported", INSTEAD)
    return bits
