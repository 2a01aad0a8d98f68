"""AutoRound, which packs as GPTQ or AWQ do: `packing_format` says how.

Source: intel/auto-round, auto_round/inference.
"""

from __future__ import annotations

from dataclasses import dataclass

from outrider.checkpoints.hf.quantized.awq import AwqLayout
from outrider.checkpoints.hf.quantized.gptq import BITS, GptqLayout
from outrider.checkpoints.hf.quantized.parts import INSTEAD, Module
from outrider.checkpoints.hf.quantized.scheme import Reader, Scheme
from outrider.checkpoints.settings import MAX_SIZE, Settings

_GPTQ, _AWQ = ("auto_gptq", "gptq"), ("auto_awq", "awq")
_FLOAT_BITS = 16
"""Modules of so many bits, or more, are not quantized."""
# How the tool tuned, and activations in floating point.
_DESCRIPTIVE = """
    quant_method autoround_version iters nsamples seqlen lr minmax_lr low_gpu_mem_usage enable_quanted_input
    batch_size amp dataset gradient_accumulate_steps enable_minmax_tuning enable_norm_bias_tuning backend scale_dtype
    block_name_to_quantize to_quant_block_names quant_block_list model_free sym super_bits super_group_size
    low_cpu_mem_usage act_dynamic act_group_size act_sym act_data_type supported_types desc_act damp_percent
    true_sequential lm_head
    """.split()  # noqa: SIM905 (a list would take a line per word)
_DESCRIPTIVE_OF_MODULE = ("sym", "act_dynamic", "act_group_size", "act_sym", "act_data_type", "scale_dtype")


@dataclass(frozen=True)
class _Widths:
    bits: int
    group_size: int


def auto_round(config: Settings) -> Scheme:
    """The scheme of a config of AutoRound.

    Raises:
        CheckpointError: it has another packing, or weights or activations of another kind.
    """
    packing = config.text("packing_format", "")
    layout = packing.removeprefix("auto_round:")
    if layout not in (*_GPTQ, *_AWQ):
        raise config.fault(f"has AutoRound's packing_format {packing!r}, which is not supported", INSTEAD)
    base = _widths(config, _Widths(4, 128))
    of_modules: dict[str, _Widths] = {}
    if config.has("extra_config"):
        extra = config.section("extra_config")
        for name in extra.present():
            module = extra.section(name)
            of_modules[name] = _widths(module, base)
            module.refuse_unread(_DESCRIPTIVE_OF_MODULE)
    config.refuse_unread(_DESCRIPTIVE)

    def reader(module: Module) -> Reader | None:
        widths = next((of_modules[name] for name in module.names if name in of_modules), base)
        if widths.bits >= _FLOAT_BITS:
            return None
        if layout in _AWQ:
            return AwqLayout(widths.group_size, has_zeros=True).read
        return GptqLayout(widths.bits, widths.group_size, zero_offset=True, desc_act=False).read

    return Scheme(reader, complete=False)


def _widths(config: Settings, default: _Widths) -> _Widths:
    bits = config.integer("bits", default.bits, low=1, high=32)
    group_size = config.integer("group_size", default.group_size, low=-1, high=MAX_SIZE)
    if bits < _FLOAT_BITS and bits not in BITS:
        raise config.fault(f"has AutoRound weights of {bits} bits, which is not supported", INSTEAD)
    if (kind := config.text("data_type", "int")) != "int" and bits < _FLOAT_BITS:
        raise config.fault(f"has AutoRound weights of type {kind!r}, which is not supported", INSTEAD)
    if (config.raw("act_bits") or _FLOAT_BITS) != _FLOAT_BITS:
        raise config.fault("quantizes its activations, which is not supported for AutoRound", INSTEAD)
    return _Widths(bits, group_size)
