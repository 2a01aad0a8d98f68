"""Merging an adapter into the weights of its base model while they are read."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from outrider.arrays import Bytes, Floats
from outrider.checkpoints.adapters.adapter import Adapter, LowRank
from outrider.checkpoints.checkpoint import FLOAT_FORMATS, Checkpoint, Format, Tensor
from outrider.errors import CheckpointError


def merged(checkpoint: Checkpoint, adapter: Adapter) -> Checkpoint:
    """The checkpoint with what the adapter adds in its weights, rounded once to the format of each.

    Raises:
        CheckpointError: a matrix that the adapter changes is quantized: quantizing the sum again would lose more than
            most adapters add.
    """
    tensors = dict(checkpoint.tensors)
    for name, part in adapter.low_rank.items():
        tensor = tensors[name]
        if tensor.format not in FLOAT_FORMATS:
            problem = f"cannot be merged into {checkpoint.path.name}, which stores {name} as {tensor.format}"
            remedy = (
                "Keep it apart, as LLM(lora={name: path}) or --lora NAME=PATH do, or use a floating-point checkpoint"
            )
            raise CheckpointError(problem, path=adapter.path, remedy=remedy)
        tensors[name] = replace(tensor, stored=_Sum(tensor, part))
    return replace(checkpoint, tensors=tensors, files=(*checkpoint.files, *adapter.files))


class _Sum:
    """Computes the (bytes,) of a matrix and what is added to it, each time it is read."""

    def __init__(self, tensor: Tensor, part: LowRank) -> None:
        self._tensor, self._part = tensor, part

    def __call__(self) -> Bytes:
        return _stored_as(self._tensor.format, self._tensor.float32() + self._part.product())


def _stored_as(format: Format, values: Floats) -> Bytes:
    """(bytes,) uint8: values rounded to nearest, ties to even."""
    if format == "BF16":
        bits = values.view(np.uint32)  # a bfloat16 is the upper half of a float32
        rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
        return rounded.astype("<u2").reshape(-1).view(np.uint8)
    with np.errstate(over="ignore"):
        return values.astype("<f4" if format == "F32" else "<f2").reshape(-1).view(np.uint8)
