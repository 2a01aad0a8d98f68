"""NVIDIA's modelopt: NVFP4 and FP8.

| algorithm                 | parts of a (rows, columns) matrix                                                       |
| ------------------------- | --------------------------------------------------------------------------------------- |
| NVFP4, W4A16_NVFP4        | weight: E2M1, two a byte; weight_scale: E4M3 per 16 columns; weight_scale_2: one factor |
| FP8                       | weight: E4M3; weight_scale: one factor                                                  |
| FP8_PER_CHANNEL_PER_TOKEN | weight: E4M3; weight_scale: one for each row                                            |

The config is config.json's `quantization_config`, or hf_quant_config.json. With MIXED_PRECISION it names the algorithm
of each module. Quantized activations are left out: they are computed as floating point.
Source: NVIDIA/Model-Optimizer, modelopt/torch/export.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from outrider.checkpoints.hf.quantized.floats import NVFP4_GROUP, Float4, Float8, fp4_groups
from outrider.checkpoints.hf.quantized.modules import wildcard_modules
from outrider.checkpoints.hf.quantized.parts import INSTEAD, Module, Parts
from outrider.checkpoints.hf.quantized.scheme import Matrix, Reader, Scheme
from outrider.checkpoints.settings import Settings

_MIXED = "MIXED_PRECISION"
# The groups repeat the algorithm in the words of compressed-tensors.
_DESCRIPTIVE = ("quant_method", "kv_cache_scheme", "kv_cache_quant_algo", "producer", "config_groups")


def modelopt(config: Settings) -> Scheme:
    """The scheme of a config of modelopt.

    Raises:
        CheckpointError: it has another algorithm.
    """
    algorithm = config.text("quant_algo").upper()
    if algorithm != _MIXED and algorithm not in _READERS:
        raise config.fault(f"is quantized by modelopt's {algorithm}, which is not supported", INSTEAD)
    if (size := config.integer("group_size", NVFP4_GROUP)) != NVFP4_GROUP:
        raise config.fault(f"has groups of {size} columns, not of {NVFP4_GROUP}")
    skipped = [config.texts(key) for key in ("ignore", "exclude_modules") if config.has(key)]
    left_out = wildcard_modules([name for names in skipped for name in names], config)
    mixed = [(wildcard_modules([name], config), read) for name, read in _layers(config)] if algorithm == _MIXED else []
    config.refuse_unread((*_DESCRIPTIVE, "quantized_layers"))

    def reader(module: Module) -> Reader | None:
        if module in left_out or module.kind == "Embedding":
            return None
        if algorithm != _MIXED:
            return _READERS[algorithm]
        return next((read for modules, read in mixed if module in modules), None)

    # Modules that modelopt has no quantizer for are not always on its list.
    return Scheme(reader, complete=False)


def unwrapped(config: Mapping[str, Any]) -> dict[str, Any]:
    """hf_quant_config.json in the form of a `quantization_config`."""
    inner = config.get("quantization")
    return {"quant_method": "modelopt", **(inner if isinstance(inner, dict) else {})}


def _layers(config: Settings) -> list[tuple[str, Reader]]:
    layers = config.section("quantized_layers")
    found: list[tuple[str, Reader]] = []
    for name in layers.present():
        layer = layers.section(name)
        algorithm = layer.text("quant_algo").upper()
        if algorithm not in _READERS or layer.integer("group_size", NVFP4_GROUP) != NVFP4_GROUP:
            raise layer.fault(f"quantizes {name} by modelopt's {algorithm}, which is not supported", INSTEAD)
        layer.refuse_unread()
        found.append((name, _READERS[algorithm]))
    return found


def _nvfp4(parts: Parts) -> Matrix:
    codes = parts.matrix_of("weight", "U8")
    scales = parts.scales("weight_scale", fp4_groups(parts, codes, NVFP4_GROUP), dtypes=("F8_E4M3",))
    factor = float(parts.float32(parts.scales("weight_scale_2", (), (1,))).reshape(-1)[0])
    parts.finish()
    return Float4(parts, codes, scales, NVFP4_GROUP, factor)


def _float8(parts: Parts) -> Matrix:
    weight = parts.matrix_of("weight", "F8_E4M3")
    rows, columns = weight.shape
    scales = parts.scales("weight_scale", (), (1,), (rows,), (rows, 1))
    parts.finish()
    one = scales.shape in ((), (1,)) and rows > 1
    return Float8(parts, weight, scales, (rows, columns) if one else (1, columns))


_READERS: dict[str, Reader] = {
    "NVFP4": _nvfp4,
    "W4A16_NVFP4": _nvfp4,
    "FP8": _float8,
    "FP8_PER_CHANNEL_PER_TOKEN": _float8,
}
