"""What a checkpoint costs to run: the bytes that one decode pass reads, and those that one position keeps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from outrider.checkpoints.checkpoint import Tensor
from outrider.checkpoints.config import AssistantConfig, Kind, ModelConfig, own_kv_layers

_GATHERED = ("embed_tokens_per_layer.weight", "masked_embedding.token_ordering")
"""Read a row at a time; every other matrix is swept as a whole (the embedding is also the head)."""


@dataclass(frozen=True)
class Traffic:
    """Bytes as the checkpoint stores them.

    `swept` counts every matrix that passes sweep over, `per_token` what one pass over one row reads of it: the same,
    but for the experts, or a drafter's clusters of tokens, that are not chosen. `gathered` is the table of which only
    single rows are read.
    """

    swept: int
    per_token: int
    gathered: int


def weight_traffic(tensors: Mapping[str, Tensor], config: ModelConfig | AssistantConfig) -> Traffic:
    """The weight bytes of one decode pass of a target, or of one step of a drafter."""
    swept = per_token = gathered = 0
    for name, tensor in tensors.items():
        size = tensor.nbytes
        if is_swept(name, tensor):
            swept += size
            top, count = chosen_of(name, config)
            per_token += size * top // count
        elif name in _GATHERED:
            gathered += size
    return Traffic(swept, per_token, gathered)


def is_swept(name: str, tensor: Tensor) -> bool:
    """Whether passes sweep over a tensor: a matrix of which not just single rows are read."""
    return len(tensor.shape) > 1 and name not in _GATHERED


def chosen_of(name: str, config: ModelConfig | AssistantConfig) -> tuple[int, int]:
    """Which part of a matrix one row reads: so many of so many."""
    if isinstance(config, AssistantConfig):
        clustered = config.use_ordered_embeddings and name == "embed_tokens.weight"
        return (config.centroid_top_k, config.num_centroids) if clustered else (1, 1)
    if config.experts is not None and ".experts." in name:
        return config.experts.top_k, config.experts.count
    return 1, 1


def kv_bytes_per_position(config: ModelConfig, bytes_per_value: int = 2) -> dict[Kind, int]:
    """Bytes of keys and values that one position adds, by kind of layer; sliding layers keep only their window."""
    sizes: dict[Kind, int] = {"full": 0, "sliding": 0}
    for index in own_kv_layers(config):
        layer = config.layers[index]
        sizes[layer.kind] += 2 * layer.kv_heads * layer.head_dim * bytes_per_value
    return sizes
