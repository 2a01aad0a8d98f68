"""The architecture of a model or a drafter, as typed facts per layer.

Both readers (GGUF, safetensors folder) return one of these two dataclasses, and nothing else reads a checkpoint's own
keys. A fact that a file does not state is derived as its reference implementation derives it, or the file is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Kind = Literal["sliding", "full"]


@dataclass(frozen=True)
class Rope:
    """Rotary embedding of one layer.

    Pair i (dims i and i + dims/2) is rotated by position * theta**(-2i/dims) / factor radians if i < rotated/2, and not
    at all beyond. "default" rope has rotated == dims, "proportional" rope int(partial_factor * dims).
    """

    theta: float
    dims: int
    rotated: int
    factor: float = 1.0


@dataclass(frozen=True)
class Layer:
    """One transformer layer.

    Attributes:
        kind: of attention.
        head_dim: width of a head.
        kv_heads: heads of keys and values that it reads.
        kv_source: the layer whose cache it reads: itself if it computes keys and values, an earlier layer if it shares
            that one's, -1 in a drafter, which reads the target's.
        mlp_width: of the dense MLP.
        window: positions that sliding attention sees, itself included; None in full layers.
        rope: its rotary embedding.
        k_eq_v: whether the key projection serves as the value projection.
    """

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
    """The mixture of experts in parallel to each layer's dense MLP: `top_k` of `count` experts of width `width`."""

    count: int
    top_k: int
    width: int


@dataclass(frozen=True)
class Suppressed:
    """Tokens that are never chosen: `always`, and `first`, as the first token of an answer. Each ascending."""

    always: tuple[int, ...] = ()
    first: tuple[int, ...] = ()

    def within(self, vocab_size: int) -> Suppressed:
        """Without ids beyond the vocabulary, which cannot be chosen anyway."""
        always, first = ([token for token in tokens if token < vocab_size] for tokens in (self.always, self.first))
        return Suppressed(tuple(always), tuple(first))


NONE_SUPPRESSED = Suppressed()


@dataclass(frozen=True)
class ModelConfig:
    """A Gemma 3 or Gemma 4 text model.

    Attributes:
        heads: query heads of every layer.
        attention_scale: factor of the query-key products.
        logit_softcap: logits become softcap * tanh(logits / softcap); None leaves them.
        ple_width: of the per-layer embedding of each layer; 0 without one.
        context_length: positions that the model was trained for.
        end_token_ids: tokens that end an answer, ascending.
        suppressed: tokens that are never chosen.
    """

    architecture: Literal["gemma3", "gemma4"]
    vocab_size: int
    hidden_size: int
    heads: int
    layers: tuple[Layer, ...]
    rms_norm_eps: float
    attention_scale: float
    logit_softcap: float | None
    ple_width: int
    experts: Experts | None
    context_length: int
    bos_token_id: int
    end_token_ids: tuple[int, ...]
    suppressed: Suppressed = NONE_SUPPRESSED

    @property
    def value_norm(self) -> bool:
        """Whether values pass an RMS norm without weight."""
        return self.architecture == "gemma4"


@dataclass(frozen=True)
class AssistantConfig:
    """An MTP drafter for a Gemma 4 target.

    Attributes:
        text: its transformer; every layer has kv_source -1, as it attends to the target's cache.
        backbone_hidden_size: the target's hidden size.
        num_centroids: clusters of its head; 0 if it scores the whole vocabulary.
        centroid_top_k: clusters that it scores per step; 0 if it scores the whole vocabulary.
    """

    text: ModelConfig
    backbone_hidden_size: int
    num_centroids: int
    centroid_top_k: int

    @property
    def use_ordered_embeddings(self) -> bool:
        """Whether its head has clusters."""
        return self.num_centroids > 0


def make_layers(
    kinds: Sequence[Kind],
    ropes: Mapping[Kind, Rope],
    sources: Sequence[int],
    kv_heads: Sequence[int],
    mlp_widths: Sequence[int],
    window: int,
    *,
    k_eq_v: bool,
) -> tuple[Layer, ...]:
    """The layers of these kinds. A layer that shares another's cache has the key-value heads of that layer."""
    return tuple(
        Layer(
            kind=kind,
            head_dim=ropes[kind].dims,
            kv_heads=kv_heads[index if source < 0 else source],
            kv_source=source,
            mlp_width=mlp_widths[index],
            window=window if kind == "sliding" else None,
            rope=ropes[kind],
            k_eq_v=k_eq_v and kind == "full",
        )
        for index, (kind, source) in enumerate(zip(kinds, sources, strict=True))
    )


def own_kv_layers(config: ModelConfig) -> Iterator[int]:
    """Indices of the layers that compute keys and values of their own."""
    return (index for index, layer in enumerate(config.layers) if layer.kv_source == index)


def last_kv_layers(config: ModelConfig) -> dict[Kind, int]:
    """Kind -> the last layer that computes keys and values of its own: the one whose cache a drafter reads."""
    return {config.layers[index].kind: index for index in own_kv_layers(config)}


def kv_sources(kinds: Sequence[Kind], shared: int | None, fault: Callable[[str], Exception]) -> tuple[int, ...]:
    """`Layer.kv_source` of each layer if the last `shared` layers read the cache of the last other layer of their kind.

    Args:
        shared: None for a drafter, all of whose layers read the target's cache.
        fault: makes the error that is raised if a layer that shares has no earlier layer of its kind to read from.
    """
    if shared is None:
        return (-1,) * len(kinds)
    own = len(kinds) - shared
    last_of_kind = {kind: index for index, kind in enumerate(kinds[:own])}
    for index, kind in enumerate(kinds):
        if index >= own and kind not in last_of_kind:
            raise fault(f"layer {index} ({kind} attention) shares keys and values, but no layer below computes any")
    return tuple(index if index < own else last_of_kind[kind] for index, kind in enumerate(kinds))
