"""A LoRA adapter: what it adds to the matrices of its base model, by neutral name (Hu et al. 2021)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from outrider.arrays import Floats
from outrider.checkpoints.checkpoint import FLOAT_FORMATS, Tensor
from outrider.checkpoints.config import ModelConfig
from outrider.checkpoints.validate import expected_shapes, unused_tensors
from outrider.errors import CheckpointError

_TABLES = ("embed_tokens.weight", "embed_tokens_per_layer.weight", "lm_head.weight", "output.weight")
_BLOCK_ROWS = 32
"""Rows of a product that are added up at a time: they stay in the processor's caches."""
_TRAIN_AGAIN = "Train it on the attention and MLP projections alone, or merge it into the checkpoint"


@dataclass(frozen=True)
class LowRank:
    """What is added to a matrix (rows, columns): scale * b a; a is (r, columns), b (rows, r), in F32, F16 or BF16."""

    a: Tensor
    b: Tensor
    scale: float

    def product(self) -> Floats:
        """(rows, columns) float32.

        Added up by rank, in order: a matrix product of numpy's has other bits on another processor.
        """
        a, b = self.a.float32(), self.b.float32()
        total = np.zeros((len(b), a.shape[1]), np.float32)
        for first in range(0, len(b), _BLOCK_ROWS):
            block, of_b = total[first : first + _BLOCK_ROWS], b[first : first + _BLOCK_ROWS]
            for rank, row in enumerate(a):
                block += of_b[:, rank, None] * row
        total *= np.float32(self.scale)
        return total


@dataclass(frozen=True)
class Adapter:
    """An opened adapter. Its values stay in its file.

    Attributes:
        path: the folder or the GGUF file.
        files: the files that determine what it adds.
        low_rank: by neutral name of the matrix.
        left_out: number of matrices that it adapts and the text model does not use: those of vision and audio encoders,
            and key and value projections of layers that share another layer's cache.
    """

    path: Path
    files: tuple[Path, ...]
    low_rank: Mapping[str, LowRank]
    left_out: int


def assembled(
    path: Path,
    files: tuple[Path, ...],
    config: ModelConfig,
    halves: Mapping[str, dict[str, Tensor]],
    scale: Callable[[str, int], float],
    left_out: int,
) -> Adapter:
    """An adapter from its tensors, checked against its base model.

    Args:
        halves: neutral name of a matrix -> its tensors "a" and "b".
        scale: of a matrix and its rank.
        left_out: see `Adapter`; matrices of encoders, which are not in `halves`.

    Raises:
        CheckpointError: it is another model's, incomplete, or adapts what cannot be adapted; the matrix is named.
    """
    shapes, unused = expected_shapes(config), unused_tensors(config)
    low_rank = dict[str, LowRank]()
    for name, of in halves.items():
        if name in unused:
            left_out += 1
            continue
        if name in _TABLES or len(shapes.get(name, ())) == 3:
            raise CheckpointError(f"adapts {name}, which is not supported", path=path, remedy=_TRAIN_AGAIN)
        if len(shapes.get(name, ())) != 2:
            remedy = "Use an adapter that was trained on this model"
            raise CheckpointError(f"adapts {name}, a matrix that the model does not have", path=path, remedy=remedy)
        low_rank[name] = _checked(path, name, shapes[name], of, scale)
    if not low_rank:
        problem = "adapts no matrix of the text model"
        raise CheckpointError(problem, path=path, remedy="Use an adapter that was trained on the text model")
    return Adapter(path, files, low_rank, left_out)


def _checked(
    path: Path, name: str, shape: tuple[int, ...], of: Mapping[str, Tensor], scale: Callable[[str, int], float]
) -> LowRank:
    if len(of) != 2:
        problem = f"holds one of the two matrices for {name}"
        raise CheckpointError(problem, path=path, remedy="It is incomplete: download or convert it again")
    a, b = of["a"], of["b"]
    rows, columns = shape
    rank = a.shape[0] if a.shape else 0
    if not rank or (a.shape, b.shape) != ((rank, columns), (rows, rank)):
        problem = f"changes {name} by {b.shape} times {a.shape}, but the model's is {shape}"
        raise CheckpointError(problem, path=path, remedy="It was trained on another model: use that one, or its own")
    for tensor in (a, b):
        if tensor.format not in FLOAT_FORMATS:
            problem = f"stores its part of {name} as {tensor.format}, which is not supported"
            raise CheckpointError(problem, path=path, remedy="Convert it to F32, F16 or BF16")
    return LowRank(a, b, scale(name, rank))
