"""An opened checkpoint: a config, named tensors and a tokenizer, independent of the file format."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from outrider.arrays import Bytes, Floats
from outrider.checkpoints.config import AssistantConfig, ModelConfig
from outrider.checkpoints.tokenizer_tables import TokenizerTables

Format = Literal[
    "F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q4_K", "Q5_K", "Q6_K",
    "IQ4_NL", "IQ4_XS", "MXFP4", "NVFP4", "IQ3_S", "IQ3_XXS", "Q3_K", "Q2_K", "TQ2_0",
    "I2", "I4", "I8", "F8_E4M3", "I32",
]  # fmt: skip

BLOCKS: dict[Format, tuple[int, int]] = {
    "F32": (1, 4),
    "F16": (1, 2),
    "BF16": (1, 2),
    "Q8_0": (32, 34),
    "Q4_0": (32, 18),
    "Q4_1": (32, 20),
    "Q5_0": (32, 22),
    "Q5_1": (32, 24),
    "Q4_K": (256, 144),
    "Q5_K": (256, 176),
    "Q6_K": (256, 210),
    "IQ4_NL": (32, 18),
    "IQ4_XS": (256, 136),
    "MXFP4": (32, 17),
    "NVFP4": (64, 36),
    "IQ3_S": (256, 110),
    "IQ3_XXS": (256, 98),
    "Q3_K": (256, 110),
    "Q2_K": (256, 84),
    "TQ2_0": (256, 66),
    "I2": (32, 8),
    "I4": (32, 16),
    "I8": (32, 32),
    "F8_E4M3": (32, 32),
    "I32": (1, 4),
}
"""(weights, bytes) of one block of every format that can be read. Rows never share a block.

I2, I4, I8 and F8_E4M3 are codes without scales, which are in `Tensor.scales`; 32 is the least size of a scale group.
"""

WEIGHT_FORMATS: tuple[Format, ...] = tuple(format for format in BLOCKS if format != "I32")
"""The formats of weights. I32 is that of a drafter's token ordering alone."""

TOKEN_ORDERING = "masked_embedding.token_ordering"
"""A drafter's token ids in order of cluster, (vocabulary,)."""

FLOAT_FORMATS: tuple[Format, ...] = ("F32", "F16", "BF16")
"""The formats of weights that are not quantized."""


INTEGER_FORMATS: tuple[Format, ...] = ("I2", "I4", "I8")
SCALED_FORMATS: tuple[Format, ...] = (*INTEGER_FORMATS, "F8_E4M3")
"""The formats whose scales are stored beside the codes; GGUF has none of them."""


@dataclass(frozen=True)
class GroupScales:
    """The scales of a matrix of one of `SCALED_FORMATS`: weight = (code - zero) * scale, rounded once to float32.

    Codes count from 0, so that those of I8 are the signed byte + 128. A group is a multiple of 32 consecutive columns
    of a row; all groups have the same size.

    Attributes:
        scale: (rows, groups) float32; of a stack of matrices, the rows of all.
        zero: (rows, groups) uint8 zero points of integers; None stands for the middle code: 2, 8 or 128.
    """

    scale: Floats
    zero: Bytes | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of scales and zero points."""
        return self.scale.nbytes + (self.zero.nbytes if self.zero is not None else 0)


def bytes_as(shape: tuple[int, ...], format: Format) -> int:
    """Bytes of a tensor of this shape, whose rows are whole blocks, in this format."""
    weights, size = BLOCKS[format]
    return math.prod(shape) // weights * size


@dataclass(frozen=True)
class Tensor:
    """One tensor of a checkpoint.

    Attributes:
        name: the neutral name.
        format: of its blocks.
        shape: row-major, e.g. (rows, columns); row r of a matrix is the bytes [r * row_bytes, (r + 1) * row_bytes).
        stored: the (bytes,) uint8 read-only view of the mapped file, or a function that converts what the file stores.
        scales: of the formats in `SCALED_FORMATS`.
        factor: by which every weight of a block format is multiplied, in float32; of a stack, one or (count, 1, 1).
    """

    name: str
    format: Format
    shape: tuple[int, ...]
    stored: Bytes | Callable[[], Bytes]
    scales: GroupScales | None = None
    factor: float | Floats = 1.0

    @property
    def data(self) -> Bytes:
        """(nbytes,) uint8, read-only. Converted at each call if the file stores another format."""
        return self.stored() if callable(self.stored) else self.stored

    @property
    def row_bytes(self) -> int:
        """Bytes of one row (the last dimension)."""
        return bytes_as(self.shape[-1:], self.format)

    @property
    def nbytes(self) -> int:
        """Bytes of all rows, and of the scales stored beside them."""
        return bytes_as(self.shape, self.format) + (self.scales.nbytes if self.scales else 0)

    def float32(self) -> Floats:
        """The values in the tensor's shape, as a new float32 array, for the formats that are no blocks.

        Raises:
            ValueError: the tensor is quantized in blocks, or holds token ids.
        """
        if self.scales is not None:
            return _scaled(self, self.scales).reshape(self.shape)
        if self.format == "BF16":
            # A bfloat16 is the upper half of a float32.
            return (self.data.view("<u2").astype(np.uint32) << 16).view(np.float32).reshape(self.shape)
        if self.format not in FLOAT_FORMATS:
            raise ValueError(f"{self.name} is stored as {self.format}, not as floating point")
        return self.data.view("<f4" if self.format == "F32" else "<f2").astype(np.float32).reshape(self.shape)


def _scaled(tensor: Tensor, scales: GroupScales) -> Floats:
    """(rows, columns): the values of codes and the scales stored beside them."""
    rows, columns = math.prod(tensor.shape[:-1]), tensor.shape[-1]
    stored = tensor.data.reshape(rows, -1)
    if tensor.format == "F8_E4M3":
        # A float16 of the same bits has an exponent bias that is larger by 8.
        halves = ((stored & 0x80).astype(np.uint16) << 8 | (stored & 0x7F).astype(np.uint16) << 7).view(np.float16)
        codes = np.where(stored & 0x7F == 0x7F, np.float32("nan"), halves.astype(np.float32) * 256)
        middle = 0
    else:
        bits = {"I2": 2, "I4": 4, "I8": 8}[tensor.format]
        middle = 1 << (bits - 1)
        parts = [stored >> shift & ((1 << bits) - 1) for shift in range(0, 8, bits)]
        codes = np.stack(parts, axis=-1).reshape(rows, columns).astype(np.float32)
        codes = (codes + middle) % 256 if tensor.format == "I8" else codes
    zero = middle if scales.zero is None else scales.zero.astype(np.float32)[:, :, None]
    grouped = codes.reshape(rows, scales.scale.shape[1], -1)
    values: Floats = ((grouped - zero) * scales.scale[:, :, None]).astype(np.float32)
    return values


@dataclass(frozen=True)
class Checkpoint:
    """An opened checkpoint. Its weights stay in its files; the tensors keep the mapping alive.

    Attributes:
        path: the GGUF file (its first part, if it is split) or the folder.
        config: of the target or the drafter.
        tensors: by neutral name, in order of layer.
        tokenizer: a GGUF file's tables, or the path of a folder's tokenizer.json; None if there is neither.
        files: the files that determine what the model computes: config and weights.
        sampling: fields of `SamplingParams` -> values that the checkpoint recommends; empty if it recommends none.
        left_out: number of tensors in the files that the text model does not use: vision and audio encoders.
    """

    path: Path
    config: ModelConfig | AssistantConfig
    tensors: Mapping[str, Tensor]
    tokenizer: TokenizerTables | Path | None
    files: tuple[Path, ...]
    sampling: Mapping[str, float]
    left_out: int
