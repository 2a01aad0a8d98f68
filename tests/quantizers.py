"""Random matrices as the tools of each maker store them, with their values by the maker's own decoder.

compressed-tensors packs and decodes with its own package; transformers decodes "fp8". The packages of AWQ, GPTQ and
modelopt need a GPU, so their published formulas are written here in torch, word by word rather than array by array, so
that a slip in the reader is not mirrored.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from compressed_tensors.compressors import NaiveQuantizationCompressor, PackedQuantizationCompressor
from compressed_tensors.compressors.mx_utils import decompress_mx_scale
from compressed_tensors.compressors.nvfp4.helpers import unpack_fp4_from_uint8
from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from compressed_tensors.quantization.lifecycle.forward import dequantize
from transformers.integrations.finegrained_fp8 import _dequantize_fp8_weight

Parts = dict[str, torch.Tensor]
Draw = Callable[[int, int, torch.Generator], tuple[Parts, torch.Tensor]]


@dataclass(frozen=True)
class Case:
    """A scheme: its quantization_config, and what draws a matrix: (rows, columns, generator) -> (parts, values)."""

    config: dict[str, Any]
    draw: Draw


def scale_of(
    shape: tuple[int, ...], columns: int, top: float, dtype: torch.dtype, rng: torch.Generator
) -> torch.Tensor:
    """Scales that keep the variance of what the matrix multiplies; `top` is the size of the largest code."""
    return ((torch.rand(shape, generator=rng) + 0.5) * 2 / top / columns**0.5).to(dtype)


def integers(low: int, high: int, shape: tuple[int, ...], rng: torch.Generator) -> torch.Tensor:
    """From `low` to `high`, both included."""
    return torch.randint(low, high + 1, shape, generator=rng)


# compressed-tensors


def ct_config(weights: dict[str, Any], format: str, **group: Any) -> dict[str, Any]:
    """A config with one group of all linear layers."""
    group = {"targets": ["Linear"], "weights": weights, "input_activations": None, "output_activations": None, **group}
    return {
        "quant_method": "compressed-tensors",
        "format": format,
        "quantization_status": "compressed",
        "ignore": ["lm_head"],
        "kv_cache_scheme": None,
        "config_groups": {"group_0": group},
    }


def groups_of(weights: dict[str, Any], rows: int, columns: int) -> tuple[int, int]:
    """The shape of the scales."""
    if weights["strategy"] == "tensor":
        return 1, 1
    return rows, 1 if weights["strategy"] == "channel" else columns // weights["group_size"]


def ct_integers(
    bits: int, strategy: str, group: int | None = None, *, symmetric: bool = True, dtype: torch.dtype = torch.bfloat16
) -> tuple[dict[str, Any], Draw]:
    """Arguments of integer weights, and a draw of codes as int8 with their parts, not packed."""
    weights: dict[str, Any] = {"num_bits": bits, "type": "int", "symmetric": symmetric, "strategy": strategy}
    weights |= {"group_size": group} if group else {}
    low, high = -(1 << bits >> 1), (1 << bits >> 1) - 1

    def draw(rows: int, columns: int, rng: torch.Generator) -> tuple[Parts, torch.Tensor]:
        shape = groups_of(weights, rows, columns)
        parts = {
            "weight": integers(low, high, (rows, columns), rng).to(torch.int8),
            "weight_scale": scale_of(shape, columns, max(high, 1), dtype, rng),
        }
        if not symmetric:
            parts["weight_zero_point"] = integers(low, high, shape, rng).to(torch.int8)
        scheme = QuantizationScheme(targets=["Linear"], weights=QuantizationArgs(**weights))
        exact = {**parts, "weight_scale": parts["weight_scale"].float()}
        return parts, NaiveQuantizationCompressor.decompress(exact, scheme)["weight"]

    return weights, draw


def packed_case(bits: int, strategy: str, group: int | None = None, *, symmetric: bool = True, **more: Any) -> Case:
    """pack-quantized."""
    weights, plain = ct_integers(bits, strategy, group, symmetric=symmetric, **more)

    def draw(rows: int, columns: int, rng: torch.Generator) -> tuple[Parts, torch.Tensor]:
        parts, _ = plain(rows, columns, rng)
        parts["weight_packed"] = pack_to_int32(parts.pop("weight"), bits)
        parts["weight_shape"] = torch.tensor([rows, columns])
        if not symmetric:
            parts["weight_zero_point"] = pack_to_int32(parts["weight_zero_point"], bits, packed_dim=0).contiguous()
        scheme = QuantizationScheme(targets=["Linear"], weights=QuantizationArgs(**weights))
        exact = {**parts, "weight_scale": parts["weight_scale"].float()}
        return parts, PackedQuantizationCompressor.decompress(exact, scheme)["weight"]

    return Case(ct_config(weights, "pack-quantized"), draw)


def act_order_case() -> Case:
    """pack-quantized with a group for each column, which the package has since dropped: looked up column by column."""
    case = packed_case(4, "group", 32)

    def draw(rows: int, columns: int, rng: torch.Generator) -> tuple[Parts, torch.Tensor]:
        parts, _ = case.draw(rows, columns, rng)
        order = (torch.arange(columns) // 32)[torch.randperm(columns, generator=rng)]
        words = parts["weight_packed"]
        codes = torch.stack([(words[:, i // 8] >> 4 * (i % 8) & 15) - 8 for i in range(columns)], dim=1)
        return parts | {"weight_g_idx": order.int()}, codes.float() * parts["weight_scale"].float()[:, order]

    config = ct_config({**case.config["config_groups"]["group_0"]["weights"], "actorder": "group"}, "pack-quantized")
    return Case(config, draw)


def int8_case(strategy: str, *, symmetric: bool = True) -> Case:
    """int-quantized, with activations that are quantized as the model runs."""
    weights, draw = ct_integers(8, strategy, symmetric=symmetric)
    activations = {"num_bits": 8, "type": "int", "symmetric": True, "dynamic": True, "strategy": "token"}
    return Case(ct_config(weights, "int-quantized", input_activations=activations), draw)


def float8(shape: tuple[int, ...], rng: torch.Generator) -> torch.Tensor:
    """Any E4M3 but those that are no numbers."""
    codes = integers(0, 255, shape, rng).to(torch.uint8)
    return torch.where((codes & 127) == 127, torch.zeros_like(codes), codes).view(torch.float8_e4m3fn)


def float8_case(strategy: str, block: tuple[int, int] | None = None, dtype: torch.dtype = torch.bfloat16) -> Case:
    """float-quantized."""
    weights: dict[str, Any] = {"num_bits": 8, "type": "float", "symmetric": True, "strategy": strategy}
    weights |= {"block_structure": list(block)} if block else {}

    def draw(rows: int, columns: int, rng: torch.Generator) -> tuple[Parts, torch.Tensor]:
        shape = {"tensor": (1,), "channel": (rows, 1)}.get(strategy)
        if block:
            shape = -(-rows // block[0]), -(-columns // block[1])
        assert shape
        scale = scale_of(shape, columns, 448, dtype, rng)
        stored = float8((rows, columns), rng)
        args = QuantizationArgs(**weights)
        if strategy == "tensor":  # a static scale of activations is there to be left out
            parts = {"weight": stored, "weight_scale": scale, "input_scale": torch.tensor([0.5])}
        else:
            parts = {"weight": stored, "weight_scale": scale}
        return parts, dequantize(stored.float(), scale.float(), None, args)

    return Case(ct_config(weights, "float-quantized"), draw)


def nvfp4_case() -> Case:
    """nvfp4-pack-quantized."""
    weights = {"num_bits": 4, "type": "float", "symmetric": True, "strategy": "tensor_group", "group_size": 16}

    def draw(rows: int, columns: int, rng: torch.Generator) -> tuple[Parts, torch.Tensor]:
        codes = integers(0, 255, (rows, columns // 2), rng).to(torch.uint8)
        scale = (torch.rand((rows, columns // 16), generator=rng) * 400).to(torch.float8_e4m3fn)
        divisor = (torch.rand(1, generator=rng) + 0.5) * 600 * columns**0.5
        values = unpack_fp4_from_uint8(codes, rows, columns, torch.float32)
        decoded = dequantize(values, scale.float(), args=QuantizationArgs(**weights), global_scale=divisor)
        parts = {"weight_packed": codes, "weight_scale": scale, "weight_global_scale": divisor}
        return parts | {"input_global_scale": torch.tensor([3.0])}, decoded

    return Case(ct_config(weights, "nvfp4-pack-quantized"), draw)


def mxfp4_case() -> Case:
    """mxfp4-pack-quantized."""
    weights = {"num_bits": 4, "type": "float", "symmetric": True, "strategy": "group", "group_size": 32}

    def draw(rows: int, columns: int, rng: torch.Generator) -> tuple[Parts, torch.Tensor]:
        codes = integers(0, 255, (rows, columns // 2), rng).to(torch.uint8)
        scale = integers(121, 124, (rows, columns // 32), rng).to(torch.uint8)
        values = unpack_fp4_from_uint8(codes, rows, columns, torch.float32)
        decoded = dequantize(values, decompress_mx_scale(scale).float(), args=QuantizationArgs(**weights))
        return {"weight_packed": codes, "weight_scale": scale}, decoded

    return Case(ct_config(weights, "mxfp4-pack-quantized"), draw)


# transformers' fp8


def fp8_case(block: tuple[int, int] | None) -> Case:
    """Blocks of any size, or one scale."""

    def draw(rows: int, columns: int, rng: torch.Generator) -> tuple[Parts, torch.Tensor]:
        shape = (-(-rows // block[0]), -(-columns // block[1])) if block else ()
        scale = scale_of(shape, columns, 448, torch.float32, rng)
        stored = float8((rows, columns), rng)
        decoded = _dequantize_fp8_weight(stored, scale, list(block) if block else None, torch.float32)
        return {"weight": stored, "weight_scale_inv": scale}, decoded

    config = {
        "quant_method": "fp8",
        "activation_scheme": "dynamic",
        "weight_block_size": list(block) if block else None,
        "modules_to_not_convert": ["lm_head"],
    }
    return Case(config, draw)


# modelopt


def modelopt_nvfp4_case() -> Case:
    """NVFP4: the factor multiplies."""

    def draw(rows: int, columns: int, rng: torch.Generator) -> tuple[Parts, torch.Tensor]:
        codes = integers(0, 255, (rows, columns // 2), rng).to(torch.uint8)
        scale = (torch.rand((rows, columns // 16), generator=rng) * 400).to(torch.float8_e4m3fn)
        factor = (torch.rand((), generator=rng) + 0.5) / 600 / columns**0.5
        values = unpack_fp4_from_uint8(codes, rows, columns, torch.float32)
        decoded = values * scale.float().repeat_interleave(16, dim=1) * factor
        parts = {"weight": codes, "weight_scale": scale, "weight_scale_2": factor, "input_scale": torch.tensor(0.1)}
        return parts, decoded

    return Case({"quant_method": "modelopt", "quant_algo": "NVFP4", "ignore": ["lm_head", "*vision*"]}, draw)


def modelopt_fp8_case(algorithm: str) -> Case:
    """FP8 with one scale, or one for each row."""

    def draw(rows: int, columns: int, rng: torch.Generator) -> tuple[Parts, torch.Tensor]:
        shape = () if algorithm == "FP8" else (rows,)
        scale = scale_of(shape, columns, 448, torch.float32, rng)
        stored = float8((rows, columns), rng)
        decoded = stored.float() * (scale if algorithm == "FP8" else scale[:, None])
        return {"weight": stored, "weight_scale": scale, "input_scale": torch.tensor(0.1)}, decoded

    return Case({"quant_method": "modelopt", "quant_algo": algorithm, "exclude_modules": ["lm_head"]}, draw)


# AWQ and GPTQ


def awq_case(group: int, *, zeros: bool = True, dtype: torch.dtype = torch.float16) -> Case:
    """AWQ's gemm layout: a word has eight rows in the order 0 2 4 6 1 3 5 7."""

    def pack(codes: torch.Tensor) -> torch.Tensor:
        """(n, rows) codes -> (n, rows / 8) words."""
        words = torch.zeros((codes.shape[0], codes.shape[1] // 8), dtype=torch.int64)
        for row in range(codes.shape[1]):
            place = [0, 4, 1, 5, 2, 6, 3, 7][row % 8]
            words[:, row // 8] |= codes[:, row].long() << 4 * place
        return as_int32(words)

    def draw(rows: int, columns: int, rng: torch.Generator) -> tuple[Parts, torch.Tensor]:
        size = columns if group == -1 else group
        groups = -(-columns // size)
        codes = integers(0, 15, (columns, rows), rng)
        points = integers(0, 15, (groups, rows), rng) if zeros else torch.full((groups, rows), 8)
        scales = scale_of((groups, rows), columns, 7, dtype, rng)
        of_column = torch.arange(columns) // size
        decoded = ((codes - points[of_column]).float() * scales.float()[of_column]).T
        parts = {"qweight": pack(codes), "qzeros": pack(points), "scales": scales}
        return parts, decoded.contiguous()

    config = {"quant_method": "awq", "bits": 4, "group_size": group, "zero_point": True, "version": "gemm"}
    return Case(config, draw)


def gptq_case(
    bits: int, group: int, *, version: int = 1, sym: bool = False, act_order: bool = False, dtype: Any = torch.float16
) -> Case:
    """GPTQ: codes dense along the columns, zero points along the rows, less one in version 1."""

    def pack(codes: torch.Tensor) -> torch.Tensor:
        """(n, m) codes -> (n * bits / 32, m) words."""
        words = torch.zeros((codes.shape[0] * bits // 32, codes.shape[1]), dtype=torch.int64)
        for index in range(codes.shape[0]):
            word, bit = divmod(index * bits, 32)
            value = codes[index].long() << bit
            words[word] |= value & 0xFFFFFFFF
            if bit + bits > 32:
                words[word + 1] |= value >> 32
        return as_int32(words)

    def draw(rows: int, columns: int, rng: torch.Generator) -> tuple[Parts, torch.Tensor]:
        size = columns if group == -1 else group
        groups = -(-columns // size)
        codes = integers(0, (1 << bits) - 1, (columns, rows), rng)
        stored = integers(0, (1 << bits) - 1, (groups, rows), rng)
        if sym:
            stored = torch.full((groups, rows), (1 << bits >> 1) - (version == 1))
        points = stored + (version == 1)
        scales = scale_of((groups, rows), columns, (1 << bits) / 2 - 0.5, dtype, rng)
        of_column = torch.arange(columns) // size
        if act_order:
            of_column = of_column[torch.randperm(columns, generator=rng)]
        decoded = ((codes - points[of_column]).float() * scales.float()[of_column]).T
        parts = {
            "qweight": pack(codes),
            "qzeros": pack(stored.T.contiguous()).T.contiguous(),
            "scales": scales,
            "g_idx": of_column.int(),
        }
        return parts, decoded.contiguous()

    config = {"quant_method": "gptq", "bits": bits, "group_size": group, "desc_act": act_order, "sym": sym}
    return Case(config | {"checkpoint_format": "gptq" if version == 1 else "gptq_v2"}, draw)


def auto_round_case(packing: str) -> Case:
    """GPTQ's packing or AWQ's, under AutoRound's name."""
    case = awq_case(32) if "awq" in packing else gptq_case(4, 32)
    config = {"quant_method": "auto-round", "bits": 4, "group_size": 32, "sym": False, "packing_format": packing}
    return Case(config | {"data_type": "int", "autoround_version": "0.5", "iters": 200}, case.draw)


def as_int32(words: torch.Tensor) -> torch.Tensor:
    """Unsigned words as the signed ones of the file."""
    return torch.where(words >= 1 << 31, words - (1 << 32), words).to(torch.int32)


CASES: dict[str, Case] = {
    **{f"ct-pack-{bits}-channel": packed_case(bits, "channel") for bits in range(1, 9)},
    "ct-pack-4-group": packed_case(4, "group", 32),
    "ct-pack-4-group-16": packed_case(4, "group", 16),
    "ct-pack-4-float32": packed_case(4, "group", 32, dtype=torch.float32),
    "ct-pack-8-group": packed_case(8, "group", 64, dtype=torch.float16),
    "ct-pack-4-tensor": packed_case(4, "tensor"),
    "ct-pack-2-zeros": packed_case(2, "group", 32, symmetric=False),
    "ct-pack-3-zeros": packed_case(3, "group", 32, symmetric=False),
    "ct-pack-4-zeros": packed_case(4, "group", 32, symmetric=False),
    "ct-pack-4-zeros-channel": packed_case(4, "channel", symmetric=False),
    "ct-pack-8-zeros": packed_case(8, "group", 32, symmetric=False),
    "ct-pack-act-order": act_order_case(),
    "ct-int8-channel": int8_case("channel"),
    "ct-int8-tensor": int8_case("tensor"),
    "ct-int8-zeros": int8_case("channel", symmetric=False),
    "ct-float8-tensor": float8_case("tensor"),
    "ct-float8-channel": float8_case("channel"),
    "ct-float8-block": float8_case("block", (32, 64), torch.float32),
    "ct-nvfp4": nvfp4_case(),
    "ct-mxfp4": mxfp4_case(),
    "fp8-block": fp8_case((32, 64)),
    "fp8-128": fp8_case((128, 128)),
    "fp8-tensor": fp8_case(None),
    "modelopt-nvfp4": modelopt_nvfp4_case(),
    "modelopt-fp8": modelopt_fp8_case("FP8"),
    "modelopt-fp8-channel": modelopt_fp8_case("FP8_PER_CHANNEL_PER_TOKEN"),
    "awq": awq_case(32),
    "awq-row": awq_case(-1),
    "awq-uneven": awq_case(96),
    "awq-small": awq_case(16),
    "awq-symmetric": awq_case(32, zeros=False),
    "awq-bfloat16": awq_case(64, dtype=torch.bfloat16),
    **{f"gptq-{bits}": gptq_case(bits, 32) for bits in (2, 3, 4, 8)},
    **{f"gptq-{bits}-v2": gptq_case(bits, 32, version=2) for bits in (2, 3, 4, 8)},
    **{f"gptq-{bits}-symmetric": gptq_case(bits, 32, sym=True) for bits in (2, 3, 4, 8)},
    "gptq-4-row": gptq_case(4, -1),
    "gptq-4-uneven": gptq_case(4, 96),
    "gptq-4-uneven-small": gptq_case(4, 48, sym=True),
    "gptq-4-act-order": gptq_case(4, 32, act_order=True),
    "gptq-4-v2-act-order": gptq_case(4, 32, version=2, act_order=True),
    "auto-round-gptq": auto_round_case("auto_round:auto_gptq"),
    "auto-round-awq": auto_round_case("auto_round:auto_awq"),
}
"""Name -> scheme."""
