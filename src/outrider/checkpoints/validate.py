"""The check of every checkpoint before it is used: its tensors are those that its config implies."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path

import numpy as np

from outrider.checkpoints.checkpoint import (
    FLOAT_FORMATS,
    INTEGER_FORMATS,
    TOKEN_ORDERING,
    WEIGHT_FORMATS,
    GroupScales,
    Tensor,
)
from outrider.checkpoints.config import AssistantConfig, Experts, ModelConfig
from outrider.checkpoints.tensors import (
    AFTER_LAYERS,
    BEFORE_LAYERS,
    EMBEDDING,
    LAYER,
    OWN_HEAD,
    ROUNDED,
    STATIC_SCALES,
    Known,
)
from outrider.errors import CheckpointError

_KV_TENSORS = [f"self_attn.{name}.weight" for name in ("k_proj", "v_proj", "k_norm", "v_norm")]
_AGAIN = "download or convert it again"
_Problem = tuple[str, str]  # what is wrong, what to do
_COMPARED_BYTES = 1 << 24


def expected_shapes(config: ModelConfig | AssistantConfig, *, untied: bool = False) -> dict[str, tuple[int, ...]]:
    """Neutral name -> shape of every tensor that a checkpoint of this config holds, in order of layer.

    Args:
        untied: its head is a matrix of its own, not the embedding.
    """
    drafter, text = (config, config.text) if isinstance(config, AssistantConfig) else (None, config)
    experts = text.experts or Experts(count=0, top_k=0, width=0)
    sizes = {
        "one": 1,
        "gemma4": int(text.architecture == "gemma4"),
        "untied": int(untied),
        "vocabulary": text.vocab_size,
        "hidden": text.hidden_size,
        "ple": text.ple_width,
        "layers*ple": len(text.layers) * text.ple_width,
        "experts": experts.count,
        "expert": experts.width,
        "2*expert": 2 * experts.width,
        "backbone": drafter.backbone_hidden_size if drafter else 0,
        "2*backbone": 2 * drafter.backbone_hidden_size if drafter else 0,
        "clusters": drafter.num_centroids if drafter else 0,
    }
    shapes = _shapes(BEFORE_LAYERS, sizes)
    for index, layer in enumerate(text.layers):
        keys = layer.kv_heads * layer.head_dim if layer.kv_source == index else 0
        of_layer = {"head": layer.head_dim, "queries": text.heads * layer.head_dim, "mlp": layer.mlp_width}
        of_layer |= {"keys": keys, "values": 0 if layer.k_eq_v else keys}
        shapes |= _shapes(LAYER, sizes | of_layer, f"layers.{index}.")
    return shapes | _shapes(AFTER_LAYERS, sizes)


def unused_tensors(config: ModelConfig | AssistantConfig) -> set[str]:
    """Neutral names of what published checkpoints hold and no pass reads: the key and value projections of layers that
    share another layer's cache."""
    layers = config.text.layers if isinstance(config, AssistantConfig) else config.layers
    shared = [f"layers.{index}." for index, layer in enumerate(layers) if layer.kv_source != index]
    unused = {layer + name for layer in shared for name in _KV_TENSORS}
    return unused | {name.replace("weight", scale) for name in unused for scale in STATIC_SCALES}


def _shapes(rows: tuple[Known, ...], sizes: Mapping[str, int], prefix: str = "") -> dict[str, tuple[int, ...]]:
    there = [row for row in rows if all(sizes[name] for name in row.sizes)]
    return {f"{prefix}{row.neutral}": tuple(sizes[name] for name in row.shape) for row in there}


def validate(
    config: ModelConfig | AssistantConfig, tensors: Mapping[str, Tensor], path: Path, *, untied: bool = False
) -> dict[str, Tensor]:
    """The model's tensors in order of layer: none missing, none unknown, each of its shape and a possible format.

    Left out are a head that equals the embedding, and key and value projections of layers that share another layer's
    cache, which no pass reads although published checkpoints hold them. A head that differs is used, as in
    transformers and llama.cpp, also where the settings call it tied: merged fine-tunes keep the base model's flag.

    Args:
        path: the checkpoint, for errors.
        untied: the settings say that the head is not the embedding, so it must be there.

    Raises:
        CheckpointError: settings contradict each other, or a tensor is missing, unknown, or of another shape or format
            than the config implies; the first such tensor is named.
    """
    head = tensors.get(OWN_HEAD)
    own = untied if head is None else not _equal(head, tensors.get(EMBEDDING))
    expected = expected_shapes(config, untied=own)
    expected |= {name: (1,) for name in tensors if _is_static_scale(name, expected)}
    for problem, remedy in chain(_contradictions(config), _misfits(config, expected, tensors)):
        raise CheckpointError(problem, path=path, remedy=remedy)
    return {name: tensors[name] for name in expected}


def _is_static_scale(name: str, expected: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether a tensor is a static activation scale of a matrix that may have one. A head's may be the embedding's."""
    matrix, _, part = name.rpartition(".")
    known = f"{matrix}.weight" in expected or matrix == "lm_head"
    return part in STATIC_SCALES and known and matrix.endswith(ROUNDED)


def _contradictions(config: ModelConfig | AssistantConfig) -> Iterator[_Problem]:
    """Settings that are possible by themselves but not together."""
    remedy = f"Its settings are inconsistent: {_AGAIN}"
    drafter, text = (config, config.text) if isinstance(config, AssistantConfig) else (None, config)
    for index, layer in enumerate(text.layers):
        if text.heads % layer.kv_heads:
            heads = f"{text.heads} query heads for {layer.kv_heads} key-value heads"
            yield f"gives layer {index} {heads}, which does not divide evenly", remedy
        if layer.head_dim % 2:
            yield f"has heads of an odd size ({layer.head_dim})", remedy
    if drafter and (text.ple_width or text.experts):
        yield "is a drafter with per-layer embeddings or experts, which no published drafter has", remedy
    if drafter and (count := drafter.num_centroids):
        if text.vocab_size % count:
            yield f"has {count} centroids, which do not divide its vocabulary of {text.vocab_size}", remedy
        if drafter.centroid_top_k > count:
            yield f"scores {drafter.centroid_top_k} of {count} centroids", remedy


def _misfits(
    config: ModelConfig | AssistantConfig, expected: Mapping[str, tuple[int, ...]], tensors: Mapping[str, Tensor]
) -> Iterator[_Problem]:
    """Tensors that are unknown, missing, or not as expected."""
    unused = unused_tensors(config)
    for name in tensors:
        if name in expected or name in unused or name == OWN_HEAD:
            continue
        remedy = "Use a checkpoint of a plain Gemma 3 or Gemma 4 model, with adapters merged into it"
        yield f"holds the tensor {name}, which is no part of the Gemma models that are supported", remedy
    for name, shape in expected.items():
        tensor, ordering = tensors.get(name), name == TOKEN_ORDERING
        if tensor is None:
            yield f"lacks the tensor {name} {shape}", f"It is incomplete, or its settings are another model's: {_AGAIN}"
        elif tensor.shape != shape:
            remedy = f"The settings describe another model than the tensors: {_AGAIN}"
            yield f"holds the tensor {name} in the shape {tensor.shape}, but its settings imply {shape}", remedy
        elif tensor.format not in (("I32",) if ordering else FLOAT_FORMATS if len(shape) == 1 else WEIGHT_FORMATS):
            remedy = f"Convert it again with this tensor as {'I32' if ordering else 'F32'}"
            yield f"stores the tensor {name} as {tensor.format}", remedy
        elif name.endswith(STATIC_SCALES) and not 0 <= (scale := float(tensor.float32()[0])) < math.inf:
            yield f"holds the static scale {name} of {scale}", f"It is damaged: {_AGAIN}"
        elif name.endswith(STATIC_SCALES[0]) and not _is_integer_matrix(name, tensors):
            remedy = "Use the checkpoint as it was published"
            yield f"holds {name}, a static scale for the input of a matrix that is not quantized", remedy
        # A token id outside the vocabulary would be read outside the embedding.
        elif ordering and not np.array_equal(np.sort(tensor.data.view("<i4")), np.arange(shape[0], dtype=np.int32)):
            problem = f"holds token ids in {TOKEN_ORDERING} that are not 0 to {shape[0] - 1}, each once"
            yield problem, f"It is damaged: {_AGAIN}"


def _is_integer_matrix(scale: str, tensors: Mapping[str, Tensor]) -> bool:
    matrix = tensors.get(f"{scale.rpartition('.')[0]}.weight", tensors.get(EMBEDDING))
    return matrix is not None and matrix.format in INTEGER_FORMATS


def _equal(head: Tensor, embedding: Tensor | None) -> bool:
    """Whether two matrices have the same bytes; compared piece by piece, without memory for whole ones."""
    if embedding is None or (head.format, head.shape) != (embedding.format, embedding.shape):
        return False
    if not np.array_equal(head.factor, embedding.factor) or not _equal_scales(head.scales, embedding.scales):
        return False
    left, right = head.data, embedding.data
    pieces = (slice(start, start + _COMPARED_BYTES) for start in range(0, len(left), _COMPARED_BYTES))
    return all(np.array_equal(left[piece], right[piece]) for piece in pieces)


def _equal_scales(left: GroupScales | None, right: GroupScales | None) -> bool:
    if left is None or right is None:
        return left is right
    if left.zero is None or right.zero is None:
        return left.zero is right.zero and np.array_equal(left.scale, right.scale)
    return np.array_equal(left.zero, right.zero) and np.array_equal(left.scale, right.scale)
