"""One .safetensors file, memory-mapped.

The safetensors package parses and checks the header (sizes, offsets, no holes, no overlaps). It returns tensors as
arrays, but numpy has no bfloat16, so this module maps the file itself. The package guarantees that the tensors follow
one another without holes in the order of `offset_keys()`, which determines their offsets.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from outrider.arrays import Bytes
from outrider.checkpoints.foreign import beginning
from outrider.errors import CheckpointError, memory_ran_out

_ITEM_BYTES = {"F32": 4, "F16": 2, "BF16": 2, "I32": 4, "I64": 8, "F64": 8, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
_ITEM_BYTES |= {"F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1}
_AGAIN = "The file is damaged or incomplete: download it again"


@dataclass(frozen=True)
class StoredTensor:
    """A tensor as stored: the file's name, dtype ("F32", "BF16", ...) and shape, and (bytes,) uint8 read-only view."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    data: Bytes


def read_safetensors(path: Path) -> dict[str, StoredTensor]:
    """Every tensor of a file, by name. Only the header is read.

    Raises:
        CheckpointError: the file cannot be read, its header is inconsistent, or a dtype is not supported.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            heads = [(name, file.get_slice(name)) for name in file.offset_keys()]
            entries = [(name, piece.get_dtype(), tuple(piece.get_shape())) for name, piece in heads]
        # The package has checked that the file is longer than its length field and its header.
        mapping = np.memmap(path, mode="r").view(np.ndarray)
    except (SafetensorError, OSError, ValueError, OverflowError) as error:
        if memory_ran_out(error):
            raise MemoryError(str(error)) from error
        foreign = beginning(path) if path.is_file() else None
        problem, remedy = foreign or (f"is not a safetensors file that can be read ({error})", _AGAIN)
        raise CheckpointError(problem, path=path, remedy=remedy) from error
    offset = 8 + int(mapping[:8].view("<u8")[0])
    tensors = {}
    for name, dtype, shape in entries:
        if dtype not in _ITEM_BYTES:
            problem = f"stores tensor {name} as {dtype}, which is not supported"
            raise CheckpointError(problem, path=path, remedy="Use a checkpoint stored as F32, F16 or BF16")
        end = offset + math.prod(shape) * _ITEM_BYTES[dtype]
        if end > len(mapping):
            raise CheckpointError(f"ends at byte {len(mapping)}, inside tensor {name}", path=path, remedy=_AGAIN)
        tensors[name] = StoredTensor(name, dtype, shape, mapping[offset:end])
        offset = end
    return tensors
