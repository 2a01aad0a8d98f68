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
    "IQ4_NL", "IQ4_XS", "MXFP4", "NVFP4", "IQ3_S", "IQ3_XXS", "Q3_K", "Q2_K", "TQ2_0", "I32",
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
    "I32": (1, 4),
}
"""(weights, bytes) of one block of every format that can be read. Rows never share a block."""

WEIGHT_FORMATS: tuple[Format, ...] = tuple(format for format in BLOCKS if format != "I32")
"""The formats of weights. I32 is that of a drafter's token ordering alone."""

TOKEN_ORDERING = "masked_embedding.token_ordering"
"""A drafter's token ids in order of cluster, (vocabulary,)."""

FLOAT_FORMATS: tuple[Format, ...] = ("F32", "F16", "BF16")
"""The formats of weights that are not quantized."""


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
        factor: by which every weight is multiplied, in float32; of a stack, one or (count, 1, 1).
    """

    name: str
    format: Format
    shape: tuple[int, ...]
    stored: Bytes | Callable[[], Bytes]
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
        """Bytes of all rows."""
        return bytes_as(self.shape, self.format)

    def float32(self) -> Floats:
        """The values of an unquantized tensor in its shape, as a new float32 array; exact for F32, F16 and BF16.

        Raises:
            ValueError: the tensor is quantized, or holds token ids.
        """
        if self.format == "BF16":
            # A bfloat16 is the upper half of a float32.
            return (self.data.view("<u2").astype(np.uint32) << 16).view(np.float32).reshape(self.shape)
        if self.format not in FLOAT_FORMATS:
            raise ValueError(f"{self.name} is stored as {self.format}, not as floating point")
        return self.data.view("<f4" if self.format == "F32" else "<f2").astype(np.float32).reshape(self.shape)


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
