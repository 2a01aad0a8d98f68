"""Experts that are stored one by one -> the stacks of the model.

Tools quantize linear layers, so they split Gemma 4's stacks: expert i of a layer has experts.i.gate_proj, up_proj and
down_proj. In the model's stack of gate and up projections, the rows of an expert's gate come first.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from outrider.checkpoints.checkpoint import GroupScales, Tensor
from outrider.checkpoints.hf.quantized.scales import StoredScales, stacked_scales
from outrider.checkpoints.hf.quantized.scheme import Matrix
from outrider.errors import CheckpointError

_EXPERT = re.compile(r"(layers\.\d+\.experts\.)(\d+)\.(gate|up|down)_proj\.weight")
_STACKS = {"gate_up_proj": ("gate", "up"), "down_proj": ("down",)}


def stacked(matrices: Mapping[str, Matrix], path: Path) -> dict[str, Tensor]:
    """The tensors, with all experts in stacks.

    Raises:
        CheckpointError: experts are missing, or differ in shape.
    """
    found: dict[str, dict[tuple[int, str], Matrix]] = {}
    out: dict[str, Tensor] = {}
    for name, matrix in matrices.items():
        if expert := _EXPERT.fullmatch(name):
            prefix, index, kind = expert.groups()
            found.setdefault(prefix, {})[int(index), kind] = matrix
        else:
            out[name] = matrix.tensor()
    for prefix, of_layer in found.items():
        count = 1 + max(index for index, _ in of_layer)
        for stack, kinds in _STACKS.items():
            wanted = [(index, kind) for index in range(count) for kind in kinds]
            if missing := [key for key in wanted if key not in of_layer]:
                index, kind = missing[0]
                problem = f"lacks the tensor {prefix}{index}.{kind}_proj"
                raise CheckpointError(problem, path=path, remedy="It is incomplete: download it again")
            name = prefix + stack
            out[name] = _stack(name, [of_layer[key] for key in wanted], count, path)
    return out


def _stack(name: str, matrices: list[Matrix], count: int, path: Path) -> Tensor:
    """A stack of `count` matrices, each of the rows of `matrices` in turn.

    It is in float32 if they differ in kind, or those of one expert in their factor.
    """
    tensors = [matrix.tensor() for matrix in matrices]
    first = tensors[0]
    if any(tensor.shape != first.shape for tensor in tensors):
        problem = f"stores the experts of {name} in different shapes"
        raise CheckpointError(problem, path=path, remedy="It is damaged: download or quantize it again")
    factors = np.array([tensor.factor for tensor in tensors], np.float32).reshape(count, -1, 1)
    if len({(tensor.format, _kind(tensor.scales)) for tensor in tensors}) > 1 or (factors != factors[:, :1]).any():
        tensors, factors = [matrix.float32() for matrix in matrices], np.ones_like(factors)
    rows, columns = first.shape
    shape = count, rows * len(tensors) // count, columns
    data = lambda: np.concatenate([tensor.data for tensor in tensors])  # noqa: E731
    scales = stacked_scales([tensor.scales for tensor in tensors if isinstance(tensor.scales, StoredScales)])
    factor = factors[:, :1] if (factors != 1).any() else 1.0
    return Tensor(name, tensors[0].format, shape, data, scales=scales, factor=factor)


def _kind(scales: GroupScales | None) -> tuple[object, ...]:
    """What the scales of matrices of one stack have in common."""
    return (scales.shape, scales.has_zero) if isinstance(scales, StoredScales) else ()
