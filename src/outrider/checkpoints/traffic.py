"""What a checkpoint costs to run: the bytes that one decode pass reads, and those that one position keeps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from outrider.checkpoints.checkpoint import Tensor
from outrider.checkpoints.config import Kind, ModelConfig, own_kv_layers

_GATHERED = "embed_tokens_per_layer.weight"
"""Read a row at a time; every other matrix is swept as a whole (the embedding is also the head)."""


@dataclass(frozen=True)
class Traffic:
    """Bytes as the checkpoint stores them.

    `swept` counts every matrix that passes sweep over, `per_token` what one pass over one row reads of it: the same,
    but for the experts that are not chosen. `gathered` is the table of which only single rows are read.
    """

    swept: int
    per_token: int
    gathered: int


def weight_traffic(tensors: Mapping[str, Tensor], config: ModelConfig) -> Traffic:
    """The weight bytes of one decode pass of a target."""
    swept = per_token = gathered = 0
    for name, tensor in tensors.items():
        size = tensor.data.nbytes
        if name == _GATHERED:
            gathered += size
        elif len(tensor.shape) > 1:
            swept += size
            chosen = config.experts is not None and ".experts." in name
            per_token += size * config.experts.top_k // config.experts.count if chosen and config.experts else size
    return Traffic(swept, per_token, gathered)


def kv_bytes_per_position(config: ModelConfig, bytes_per_value: int = 2) -> dict[Kind, int]:
    """Bytes of keys and values that one position adds, by kind of layer; sliding layers keep only their window."""
    sizes: dict[Kind, int] = {"full": 0, "sliding": 0}
    for index in own_kv_layers(config):
        layer = config.layers[index]
        sizes[layer.kind] += 2 * layer.kv_heads * layer.head_dim * bytes_per_value
    return sizes
