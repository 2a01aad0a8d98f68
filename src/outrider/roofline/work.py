"""What one pass of a target, or one step of a drafter, has to do: matrices to sweep, keys and values to read."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from outrider.backends.cpu import KvFormat
from outrider.backends.cpu.weights import packed_bytes
from outrider.checkpoints.checkpoint import Format, Tensor
from outrider.checkpoints.config import AssistantConfig, Layer, ModelConfig, own_kv_layers
from outrider.checkpoints.traffic import chosen_of, is_swept

_JOINED = ("k_proj.weight", "v_proj.weight", "up_proj.weight")
"""Matrices with the same input as the one before, swept over together with it."""


@dataclass(frozen=True)
class Matrix:
    """A matrix that a pass multiplies its rows by, or a stack of `count` of which each row takes `chosen`."""

    format: Format
    weights: int
    nbytes: int
    chosen: int = 1
    count: int = 1

    def touched(self, rows: int) -> float:
        """The share of it that `rows` rows read: all, or of a stack 1 - (1 - k / n)^rows.

        Each row chooses k of n independently.
        """
        return 1.0 - (1.0 - self.chosen / self.count) ** rows


@dataclass(frozen=True)
class Attention:
    """A layer's attention. `window` is 0 where it sees everything."""

    heads: int
    kv_heads: int
    head_dim: int
    window: int

    def positions(self, context: int) -> int:
        """Positions that a row looks at after `context` of them."""
        return min(context, self.window) if self.window else context

    def stored(self, cache: KvFormat) -> KvFormat:
        """The format of its keys and values in a cache of a format: with a window, 8 bits are too few."""
        return "float16" if cache == "int8" and self.window else cache


@dataclass(frozen=True)
class Work:
    """One pass: what is read and multiplied, and in how many sweeps over matrices, one after the other."""

    matrices: tuple[Matrix, ...]
    attentions: tuple[Attention, ...]
    sweeps: int

    @property
    def bytes_per_token(self) -> float:
        """Weight bytes that a pass over one row reads."""
        return sum(matrix.nbytes * matrix.touched(1) for matrix in self.matrices)

    @property
    def main_format(self) -> Format:
        """The format of which a pass over one row reads the most bytes."""
        read: dict[Format, float] = {}
        for matrix in self.matrices:
            read[matrix.format] = read.get(matrix.format, 0.0) + matrix.nbytes * matrix.touched(1)
        return max(read, key=read.__getitem__)


def target_work(tensors: Mapping[str, Tensor], config: ModelConfig) -> Work:
    """The work of a target's pass."""
    return _work(tensors, config, config, config.layers)


def drafter_work(tensors: Mapping[str, Tensor], config: AssistantConfig, target: ModelConfig) -> Work:
    """The work of a drafter's step. Its layers read the target's keys and values, so their shapes are the target's."""
    source = {target.layers[i].kind: target.layers[i] for i in own_kv_layers(target)}
    return _work(tensors, config, config.text, [source[layer.kind] for layer in config.text.layers])


def _work(
    tensors: Mapping[str, Tensor], config: ModelConfig | AssistantConfig, text: ModelConfig, layers: Iterable[Layer]
) -> Work:
    matrices, sweeps = [], 0
    for name, tensor in tensors.items():
        if is_swept(name, tensors):
            weights = math.prod(tensor.shape)
            chosen, count = chosen_of(name, tensors, config)
            matrices.append(Matrix(tensor.format, weights, packed_bytes(tensor), chosen, count))
            sweeps += not name.endswith(_JOINED)
    attentions = tuple(Attention(text.heads, layer.kv_heads, layer.head_dim, layer.window or 0) for layer in layers)
    return Work(tuple(matrices), attentions, sweeps)
