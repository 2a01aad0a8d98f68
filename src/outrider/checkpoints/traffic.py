"""Bytes that one decode pass reads, and bytes of keys and values per position."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from outrider.checkpoints.checkpoint import TOKEN_ORDERING, Tensor
from outrider.checkpoints.config import AssistantConfig, ModelConfig
from outrider.checkpoints.tensors import EMBEDDING, head_of

_GATHERED = ("embed_tokens_per_layer.weight", TOKEN_ORDERING)
"""Of these, passes gather single rows, as of the embedding where it is not the head. They read other matrices whole."""


@dataclass(frozen=True)
class Traffic:
    """Bytes as stored in the checkpoint.

    Attributes:
        swept: of all matrices that passes read whole.
        per_token: of these, what a pass over one row reads: all but the experts, or the clusters of a drafter's head,
            that it does not choose.
        gathered: of the tables of which passes read single rows.
    """

    swept: int
    per_token: int
    gathered: int


def weight_traffic(tensors: Mapping[str, Tensor], config: ModelConfig | AssistantConfig) -> Traffic:
    """The weight bytes of one decode pass of a target, or of one step of a drafter."""
    swept = per_token = gathered = 0
    for name, tensor in tensors.items():
        size = tensor.nbytes
        if is_swept(name, tensors):
            swept += size
            top, count = chosen_of(name, tensors, config)
            per_token += size * top // count
        elif name in (EMBEDDING, *_GATHERED):
            gathered += size
    return Traffic(swept, per_token, gathered)


def is_swept(name: str, tensors: Mapping[str, Tensor]) -> bool:
    """Whether passes read a tensor of a checkpoint whole: a matrix other than those of which they gather rows."""
    gathered = name in _GATHERED or (name == EMBEDDING != head_of(tensors))
    return len(tensors[name].shape) > 1 and not gathered


def chosen_of(name: str, tensors: Mapping[str, Tensor], config: ModelConfig | AssistantConfig) -> tuple[int, int]:
    """(k, n): a pass over one row reads k of the n parts of a matrix (experts, or clusters of a drafter's head)."""
    if isinstance(config, AssistantConfig):
        clustered = config.use_ordered_embeddings and name == head_of(tensors)
        return (config.centroid_top_k, config.num_centroids) if clustered else (1, 1)
    if config.experts is not None and ".experts." in name:
        return config.experts.top_k, config.experts.count
    return 1, 1
