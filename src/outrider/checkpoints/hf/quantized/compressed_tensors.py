"""compressed-tensors: what llm-compressor, QAT releases and vLLM's tools publish.

The config has groups of modules, each with the arguments of its weights and a format:

| format                          | parts of a (rows, columns) matrix                                                  |
| ------------------------------- | ---------------------------------------------------------------------------------- |
| pack-quantized                  | weight_packed: int32 words of codes of 1 to 8 bits plus 2^(bits-1), dense from the |
|                                 | lowest bits up; weight_scale; weight_shape; weight_zero_point, packed along the    |
|                                 | rows; weight_g_idx, the group of each column                                       |
| int-, float- or naive-quantized | weight: int8 or E4M3; weight_scale; weight_zero_point: int8                        |
| nvfp4-pack-quantized            | weight_packed: E2M1, two a byte; weight_scale: E4M3; weight_global_scale: divisor |
| mxfp4-pack-quantized            | weight_packed: E2M1, two a byte; weight_scale: exponents                           |

Scales are one for the matrix, (rows, 1), (rows, groups) or one for each block. Quantized activations are left out: they
are computed as floating point. (Static scales of outputs are those of `hf.mobile`.)
Source: the package compressed_tensors, compressors/ and quantization/.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from outrider.arrays import Bytes, Ints
from outrider.checkpoints.hf.quantized.bits import unpacked
from outrider.checkpoints.hf.quantized.floats import MXFP4_GROUP, NVFP4_GROUP, Float4, Float8, fp4_groups
from outrider.checkpoints.hf.quantized.integers import Integers, dense, even_columns, group_count, widened
from outrider.checkpoints.hf.quantized.modules import Modules, compressed_tensors_modules
from outrider.checkpoints.hf.quantized.parts import INSTEAD, Module, Parts
from outrider.checkpoints.hf.quantized.scheme import Matrix, Reader, Scheme
from outrider.checkpoints.hf.safetensors_file import StoredTensor
from outrider.checkpoints.settings import MAX_SIZE, Settings

_NAIVE = ("int-quantized", "float-quantized", "naive-quantized")
_PACKED = "pack-quantized"
_FP4 = ("nvfp4-pack-quantized", "mxfp4-pack-quantized")
_DENSE = "dense"
_MIXED = "mixed-precision"
_STRATEGIES = ("tensor", "channel", "group", "tensor_group", "block")
# Provenance and calibration, and switches of transformers for how to run the model.
_DESCRIPTIVE = """
    quant_method quantization_status global_compression_ratio version provider dequantize run_compressed
    use_optimized_inference kv_cache_scheme
    """.split()  # noqa: SIM905 (a list would take a line per word)
_DESCRIPTIVE_OF_WEIGHTS = ("dynamic", "observer", "observer_kwargs", "scale_dtype", "zp_dtype")


@dataclass(frozen=True)
class _Weights:
    """The arguments of a group's weights, named as in the config."""

    num_bits: int
    type: str
    symmetric: bool
    strategy: str
    group_size: int
    block: tuple[int, int]
    actorder: str


def compressed_tensors(config: Settings) -> Scheme:
    """The scheme of a config with `config_groups`.

    Raises:
        CheckpointError: it has a format, or arguments, that are not read.
    """
    format = config.text("format", _DENSE)
    for key, what in (("sparsity_config", "sparsity"), ("transform_config", "transforms of its activations")):
        held = config.raw(key)
        if held and not (isinstance(held, dict) and held.get("format") == _DENSE):
            raise config.fault(f"has {what} ({key}), which is not supported", INSTEAD)
    ignored = compressed_tensors_modules(config.texts("ignore") if config.has("ignore") else [], config)
    groups = config.section("config_groups") if format != _DENSE or config.has("config_groups") else None
    readers = [_group(groups.section(name), format) for name in groups.present()] if groups else []
    config.refuse_unread(_DESCRIPTIVE)

    def reader(module: Module) -> Reader | None:
        if format == _DENSE or module in ignored:
            return None
        meant = [(rank, reader) for targets, reader in readers if (rank := targets.match(module)) is not None]
        return min(meant, key=lambda found: found[0])[1] if meant else None

    return Scheme(reader, complete=True)


def _group(group: Settings, format: str) -> tuple[Modules, Reader]:
    """The modules of a group, and how they are stored."""
    targets = compressed_tensors_modules(group.texts("targets"), group)
    format = group.text("format", format)
    group.skip("input_activations")
    weights = _weights(group.section("weights"))
    group.refuse_unread()
    if format == _MIXED:
        format = _FP4[weights.group_size != 16] if (weights.type, weights.num_bits) == ("float", 4) else ""
    if weights.type == "int" and format in (_PACKED, *_NAIVE, ""):
        return targets, lambda parts: _integers(parts, weights, format)
    if weights.type == "float" and weights.num_bits == 8 and format in (*_NAIVE, ""):
        return targets, lambda parts: _float8(parts, weights)
    if weights.type == "float" and weights.num_bits == 4 and format in _FP4:
        return targets, lambda parts: _float4(parts, format)
    if format not in (_PACKED, *_NAIVE, *_FP4):
        raise group.fault(f"stores quantized weights as {format!r}, which is not supported", INSTEAD)
    raise group.fault(f"has weights of {weights.num_bits} bits of type {weights.type!r} as {format!r}", INSTEAD)


def _weights(config: Settings) -> _Weights:
    strategy, symmetric = config.text("strategy", ""), config.flag("symmetric", True)
    group_size = config.integer("group_size", -1, low=-1, high=MAX_SIZE)
    strategy = strategy or ("group" if group_size > 0 else "channel" if config.has("group_size") else "tensor")
    if strategy not in _STRATEGIES:
        raise config.fault(f"scales weights by the strategy {strategy!r}, which is not supported", INSTEAD)
    if strategy in ("group", "tensor_group") and group_size < 1:
        raise config.fault(f"has groups of {group_size} columns")
    actorder = config.raw("actorder")
    if actorder not in (None, False, "weight", "static", "group", "dynamic"):
        raise config.fault(f"orders columns by {actorder!r}, which is not supported", INSTEAD)
    weights = _Weights(
        num_bits=config.integer("num_bits", 8, low=1, high=8),
        type=config.text("type", "int").lower(),
        symmetric=symmetric,
        strategy=strategy,
        group_size=group_size,
        block=_block(config) if strategy == "block" else (1, 1),
        actorder="group" if actorder in ("group", "dynamic") else "",
    )
    if weights.type == "float" and not symmetric:
        raise config.fault("has floating-point weights with zero points, which is not supported", INSTEAD)
    config.skip("block_structure")
    config.refuse_unread(_DESCRIPTIVE_OF_WEIGHTS)
    return weights


def _block(config: Settings) -> tuple[int, int]:
    found = config.raw("block_structure")
    sizes = found.split("x") if isinstance(found, str) else found
    if isinstance(sizes, list) and len(sizes) == 2 and all(str(size).isdecimal() and int(size) > 0 for size in sizes):
        return int(sizes[0]), int(sizes[1])
    raise config.fault(f"has blocks of {found!r} weights")


def _integers(parts: Parts, weights: _Weights, format: str) -> Matrix:
    """Packed codes, or int8."""
    if format in _NAIVE or (not format and "weight_packed" not in parts):
        return _int8(parts, weights)
    stored = parts.matrix_of("weight_packed", "I32")
    rows, columns = _shape(parts)
    bits = weights.num_bits
    if stored.shape[0] != rows or not columns * bits <= stored.shape[1] * 32 < columns * bits + 32 * bits:
        raise parts.misfit("weight_packed", stored.shape, f"{rows} rows of {columns} codes of {bits} bits")
    zero = None
    scale, groups, group_of = _scale(parts, weights, rows, columns)
    if not weights.symmetric:
        packed_rows = -(-rows * bits // 32)
        points = parts.scales("weight_zero_point", (packed_rows, groups), dtypes=("I32",))
        zero = lambda: _packed_along_rows(points, rows, bits)  # noqa: E731
    if bits in (2, 4, 8) and stored.shape[1] * 32 == columns * bits:
        codes, width = dense(lambda: stored.data, bits), bits
    else:
        codes, width = widened(lambda: unpacked(stored.data, rows, columns, bits), bits, centred=weights.symmetric)
    even_columns(parts, columns, width)
    parts.finish()
    return Integers(
        parts=parts,
        shape=(rows, columns),
        bits=width,
        codes=codes,
        stored_scales=scale,
        scale=lambda: np.broadcast_to(parts.float32(scale).reshape(-1, groups), (rows, groups)),
        groups=groups,
        zero=zero,
        group_of=group_of,
    )


def _int8(parts: Parts, weights: _Weights) -> Matrix:
    """Signed codes, a byte each."""
    stored = parts.matrix_of("weight", "I8")
    rows, columns = stored.shape
    scale, groups, group_of = _scale(parts, weights, rows, columns)
    zero = None
    if not weights.symmetric:
        points = parts.scales("weight_zero_point", scale.shape, dtypes=("I8",))
        zero = lambda: np.broadcast_to(_shifted(points).reshape(-1, groups), (rows, groups)).astype(np.int32)  # noqa: E731
    parts.finish()
    return Integers(
        parts=parts,
        shape=(rows, columns),
        bits=8,
        codes=lambda: stored.data,
        stored_scales=scale,
        scale=lambda: np.broadcast_to(parts.float32(scale).reshape(-1, groups), (rows, groups)),
        groups=groups,
        zero=zero,
        group_of=group_of,
    )


def _shifted(stored: StoredTensor) -> Bytes:
    """Signed bytes plus 128."""
    return stored.data ^ np.uint8(0x80)


def _scale(parts: Parts, weights: _Weights, rows: int, columns: int) -> tuple[StoredTensor, int, Ints | None]:
    """The scales of integers, the groups of a row, and the group of each column if they are out of order."""
    if weights.strategy == "tensor":
        return parts.scales("weight_scale", (), (1,), (1, 1)), 1, None
    if weights.strategy == "channel":
        return parts.scales("weight_scale", (rows, 1), (rows,)), 1, None
    if weights.strategy == "block":
        raise parts.fault(f"scales {parts.matrix} by blocks of integers, which is not supported", INSTEAD)
    if columns % weights.group_size:
        raise parts.fault(f"has a group size of {weights.group_size} for {parts.matrix} {(rows, columns)}")
    groups = group_count(parts, columns, weights.group_size)
    scale = parts.scales("weight_scale", (rows, groups))
    if weights.actorder != "group":
        return scale, groups, None
    order: Ints = parts.scales("weight_g_idx", (columns,), dtypes=("I32",)).data.view("<i4")
    if order.min() < 0 or order.max() >= groups:
        raise parts.fault(f"puts columns of {parts.matrix} into groups that it does not have (weight_g_idx)")
    trivial = np.array_equal(order, np.arange(columns) // weights.group_size)
    return scale, groups, None if trivial else order


def _packed_along_rows(points: StoredTensor, rows: int, bits: int) -> Ints:
    """(rows, groups) of zero points that are packed along the rows."""
    words = points.data.view("<i4").reshape(points.shape)
    turned = np.ascontiguousarray(words.T)
    return unpacked(turned.view(np.uint8).reshape(-1), points.shape[1], rows, bits).T.astype(np.int32)


def _float8(parts: Parts, weights: _Weights) -> Matrix:
    stored = parts.matrix_of("weight", "F8_E4M3")
    rows, columns = stored.shape
    tile = {"tensor": (rows, columns), "channel": (1, columns), "block": weights.block}.get(weights.strategy)
    tile = tile or (1, weights.group_size)
    scale = parts.of("weight_scale", "F32", "F16", "BF16")
    parts.finish()
    return Float8(parts, stored, scale, tile)


def _float4(parts: Parts, format: str) -> Matrix:
    codes = parts.matrix_of("weight_packed", "U8")
    if format == "mxfp4-pack-quantized":
        scales = parts.scales("weight_scale", fp4_groups(parts, codes, MXFP4_GROUP), dtypes=("U8", "F8_E8M0"))
        parts.finish()
        return Float4(parts, codes, scales, MXFP4_GROUP)
    scales = parts.scales("weight_scale", fp4_groups(parts, codes, NVFP4_GROUP), dtypes=("F8_E4M3",))
    divisor = float(parts.float32(parts.scales("weight_global_scale", (), (1,))).reshape(-1)[0])
    parts.finish()
    return Float4(parts, codes, scales, NVFP4_GROUP, 1 / divisor if divisor else 0.0)


def _shape(parts: Parts) -> tuple[int, int]:
    stored = parts.scales("weight_shape", (2,), dtypes=("I64", "I32"))
    rows, columns = stored.data.view("<i8" if stored.dtype == "I64" else "<i4").tolist()
    if rows < 1 or columns < 1:
        raise parts.fault(f"gives {parts.matrix} the shape {(rows, columns)}")
    return rows, columns
