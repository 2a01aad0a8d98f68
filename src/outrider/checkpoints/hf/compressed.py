"""Integer weights in compressed-tensors' pack-quantized format, as QAT releases and vLLM's tools publish them.

A matrix X.weight of (rows, columns) is stored as three tensors: X.weight_packed (rows, columns * bits / 32) int32,
codes plus 2^(bits-1) from the lowest bits up; X.weight_scale (rows, groups); X.weight_shape. Reordered, these are rows
of Q4_0 or Q8_0 blocks of equal value. If a scale is not exact in float16, the matrix becomes float32, which holds every
product of a scale and a code. Source: the package compressed_tensors, compressors/pack_quantized.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from outrider.arrays import Bytes, Floats
from outrider.checkpoints.checkpoint import BLOCKS, FLOAT_FORMATS, Format, Tensor
from outrider.checkpoints.hf.safetensors_file import StoredTensor
from outrider.errors import CheckpointError

_PARTS = ("weight_packed", "weight_scale", "weight_shape")
_FOREIGN_PARTS = ("weight_zero_point", "weight_g_idx", "weight_global_scale", "input_scale", "input_zero_point")
_BLOCK, _ = BLOCKS["Q4_0"]  # as of Q8_0
_FORMATS: dict[int, Format] = {4: "Q4_0", 8: "Q8_0"}
_REMEDY = "Use a checkpoint with symmetric 4- or 8-bit integer weights, an unquantized one, or a GGUF file"


def check_scheme(config: Mapping[str, Any], path: Path) -> None:
    """Check that a config.json's `quantization_config` describes weights that `unpacked` reads.

    Raises:
        CheckpointError: it describes another method or scheme.
    """
    method, groups = config.get("quant_method"), config.get("config_groups")
    if method != "compressed-tensors" or not isinstance(groups, dict):
        raise _refused(path, f"is quantized by {method!r}")
    if config.get("kv_cache_scheme") or config.get("sparsity_config"):
        raise _refused(path, "has a quantization scheme for the cache, or sparsity")
    for group in (group if isinstance(group, dict) else {} for group in groups.values()):
        weights = found if isinstance(found := group.get("weights"), dict) else {}
        kind = group.get("format") or config.get("format")
        if kind not in ("pack-quantized", "mixed-precision"):
            raise _refused(path, f"stores quantized weights as {kind!r}")
        if group.get("input_activations") or group.get("output_activations"):
            raise _refused(path, "quantizes its activations")
        if (weights.get("type"), weights.get("symmetric")) != ("int", True) or weights.get("num_bits") not in _FORMATS:
            raise _refused(path, f"has weights of {weights.get('num_bits')} bits of type {weights.get('type')!r}")


def unpacked(name: str, parts: Mapping[str, StoredTensor], path: Path) -> Tensor:
    """The matrix `name`, stored as `parts` (keyed by the last part of their names).

    Raises:
        CheckpointError: a part is missing, of another scheme, or of a shape that does not fit.
    """
    if foreign := [part for part in _FOREIGN_PARTS if part in parts]:
        raise _refused(path, f"stores {name} with {foreign[0]}")
    if missing := [part for part in _PARTS if part not in parts]:
        raise CheckpointError(f"stores {name} without {missing[0]}", path=path, remedy="Download it again")
    packed, scale, shape = (parts[part] for part in _PARTS)
    rows, columns = _shape(name, shape, path)
    words = packed.shape[1] if packed.dtype == "I32" and len(packed.shape) == 2 and packed.shape[0] == rows else 0
    bits = words * 32 // columns
    if bits not in _FORMATS or bits * columns != 32 * words or columns % _BLOCK:
        raise _refused(path, f"stores {name} {(rows, columns)} in {packed.shape} of {packed.dtype}")
    scale_rows, groups = scale.shape if len(scale.shape) == 2 else (0, 1)
    even = scale_rows == rows and groups and columns % groups == 0 and columns // groups % _BLOCK == 0
    if scale.dtype not in FLOAT_FORMATS or not even:
        raise _refused(path, f"scales {name} {(rows, columns)} by {scale.shape} of {scale.dtype}")
    scales = Tensor(name, scale.dtype, scale.shape, scale.data).float32()
    repeated = columns // _BLOCK // groups
    with np.errstate(over="ignore"):
        halves = scales.astype(np.float16)
    if np.array_equal(halves.astype(np.float32), scales):
        return Tensor(name, _FORMATS[bits], (rows, columns), lambda: _blocks(packed.data, bits, halves, repeated))
    return Tensor(name, "F32", (rows, columns), lambda: _floats(packed.data, bits, scales, columns // groups))


def _blocks(codes: Bytes, bits: int, scales: npt.NDArray[np.float16], repeated: int) -> Bytes:
    """Q4_0 or Q8_0 blocks: a float16 scale, then the codes of 32 weights."""
    out = np.empty((len(codes) * 8 // bits // _BLOCK, 2 + _BLOCK * bits // 8), np.uint8)
    out[:, :2] = np.repeat(scales.reshape(-1), repeated).view(np.uint8).reshape(-1, 2)
    if bits == 8:
        out[:, 2:] = codes.reshape(-1, _BLOCK) ^ np.uint8(0x80)
    else:
        of_block = _nibbles(codes).reshape(-1, _BLOCK)
        out[:, 2:] = of_block[:, :16] | of_block[:, 16:] << np.uint8(4)
    return out.reshape(-1)


def _floats(codes: Bytes, bits: int, scales: Floats, group: int) -> Bytes:
    unsigned = codes if bits == 8 else _nibbles(codes)
    values = unsigned.astype(np.float32) - np.float32(1 << (bits - 1))
    return (values.reshape(-1, group) * scales.reshape(-1, 1)).astype(np.float32).reshape(-1).view(np.uint8)


def _nibbles(codes: Bytes) -> Bytes:
    """(2 * bytes,) codes, the lower half of each byte first."""
    out = np.empty((len(codes), 2), np.uint8)
    out[:, 0], out[:, 1] = codes & np.uint8(15), codes >> np.uint8(4)
    return out.reshape(-1)


def _shape(name: str, shape: StoredTensor, path: Path) -> tuple[int, int]:
    if shape.dtype not in ("I64", "I32") or shape.shape != (2,):
        raise CheckpointError(f"stores the shape of {name} as {shape.dtype}", path=path, remedy="Download it again")
    rows, columns = shape.data.view("<i8" if shape.dtype == "I64" else "<i4").tolist()
    if rows < 1 or columns < 1:
        raise CheckpointError(f"gives {name} the shape {(rows, columns)}", path=path, remedy="Download it again")
    return rows, columns


def _refused(path: Path, what: str) -> CheckpointError:
    return CheckpointError(f"{what}, which is not supported", path=path, remedy=_REMEDY)
