"""What a checkpoint says about its architecture, as typed facts per layer.

Every reader (GGUF, safetensors folder) ends in one of these two dataclasses; nothing above this layer looks at a
checkpoint's own key names again. Values are exact: what a file does not state is derived here or refused, never
guessed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Kind = Literal["sliding", "full"]


@dataclass(frozen=True)
class Rope:
    """Rotary embedding of one layer.

    Pair i (dims i and i + dims/2) turns by position * theta**(-2i/dims) / factor for i < rotated/2, and not at all
    beyond: "default" rope has rotated == dims, "proportional" rope int(partial_factor * dims).
    """

    theta: float
    dims: int
    rotated: int
    factor: float = 1.0


@dataclass(frozen=True)
class Layer:
    """One transformer layer. `kv_source` is the layer whose keys and values this one reads (itself, if it makes its
    own; -1 in a drafter, which reads the target's)."""

    kind: Kind
    head_dim: int
    kv_heads: int
    kv_source: int
    mlp_width: int
    window: int | None
    rope: Rope
    k_eq_v: bool


@dataclass(frozen=True)
class Experts:
    """The mixture of experts that stands beside each layer's dense MLP."""

    count: int
    top_k: int
    width: int


@dataclass(frozen=True)
class ModelConfig:
    """A Gemma 3 or Gemma 4 text model."""

    architecture: Literal["gemma3", "gemma4"]
    vocab_size: int
    hidden_size: int
    heads: int
    layers: tuple[Layer, ...]
    rms_norm_eps: float
    attention_scale: float
    value_norm: bool
    logit_softcap: float | None
    ple_width: int
    experts: Experts | None
    context_length: int
    bos_token_id: int
    end_token_ids: tuple[int, ...]


@dataclass(frozen=True)
class AssistantConfig:
    """A drafter for a Gemma 4 target: `text.layers` have kv_source -1, since they read the target's keys and values.

    `num_centroids` and `centroid_top_k` are 0 when the drafter scores the whole vocabulary
    (`use_ordered_embeddings` false).
    """

    text: ModelConfig
    backbone_hidden_size: int
    num_centroids: int
    centroid_top_k: int
    use_ordered_embeddings: bool


def own_kv_layers(config: ModelConfig) -> Iterator[int]:
    """Indices of the layers that compute keys and values of their own."""
    return (index for index, layer in enumerate(config.layers) if layer.kv_source == index)


def last_kv_layers(config: ModelConfig) -> dict[Kind, int]:
    """Kind -> the last layer that computes keys and values of its own: the one whose cache a drafter reads."""
    return {config.layers[index].kind: index for index in own_kv_layers(config)}


def kv_sources(kinds: tuple[Kind, ...], shared: int) -> tuple[int, ...]:
    """The KV source of each layer when the last `shared` layers reuse the KV of the last unshared layer of their kind.

    Raises:
        ValueError: a shared layer has no unshared layer of its kind to read from.
    """
    first_shared = len(kinds) - shared
    last_of_kind = {kind: index for index, kind in enumerate(kinds[:first_shared])}
    sources = []
    for index, kind in enumerate(kinds):
        if index >= first_shared and kind not in last_of_kind:
            raise ValueError(f"layer {index} ({kind} attention) shares keys and values, but no layer below makes any")
        sources.append(index if index < first_shared else last_of_kind[kind])
    return tuple(sources)
