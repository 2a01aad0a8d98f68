"""The check of every checkpoint before it is used: its tensors are those that its config implies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path

import numpy as np

from outrider.checkpoints.checkpoint import FLOAT_FORMATS, TOKEN_ORDERING, WEIGHT_FORMATS, Tensor
from outrider.checkpoints.config import AssistantConfig, Experts, ModelConfig
from outrider.checkpoints.tensors import AFTER_LAYERS, BEFORE_LAYERS, LAYER, Known
from outrider.errors import CheckpointError

_KV_TENSORS = [f"self_attn.{name}.weight" for name in ("k_proj", "v_proj", "k_norm", "v_norm")]
_AGAIN = "download or convert it again"
_Problem = tuple[str, str]  # what is wrong, what to do
_EMBEDDING = "embed_tokens.weight"
_HEADS = ("lm_head.weight", "output.weight")
_COMPARED_BYTES = 1 << 24


def expected_shapes(config: ModelConfig | AssistantConfig) -> dict[str, tuple[int, ...]]:
    """Neutral name -> shape of every tensor that a checkpoint of this config holds, in order of layer."""
    drafter, text = (config, config.text) if isinstance(config, AssistantConfig) else (None, config)
    experts = text.experts or Experts(count=0, top_k=0, width=0)
    sizes = {
        "one": 1,
        "gemma4": int(text.architecture == "gemma4"),
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


def _shapes(rows: tuple[Known, ...], sizes: Mapping[str, int], prefix: str = "") -> dict[str, tuple[int, ...]]:
    there = [row for row in rows if all(sizes[name] for name in row.sizes)]
    return {f"{prefix}{row.neutral}": tuple(sizes[name] for name in row.shape) for row in there}


def validate(config: ModelConfig | AssistantConfig, tensors: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The model's tensors in order of layer: none missing, none unknown, each of its shape and a possible format.

    Left out are an output head that equals the embedding, and key and value projections of layers that share another
    layer's cache, which no pass reads although published checkpoints hold them.

    Args:
        path: the checkpoint, for errors.

    Raises:
        CheckpointError: settings contradict each other, or a tensor is missing, unknown, or of another shape or format
            than the config implies; the first such tensor is named.
    """
    expected = expected_shapes(config)
    for problem, remedy in chain(_contradictions(config), _misfits(config, expected, tensors)):
        raise CheckpointError(problem, path=path, remedy=remedy)
    return {name: tensors[name] for name in expected}


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
    layers = config.text.layers if isinstance(config, AssistantConfig) else config.layers
    shared = [f"layers.{index}." for index, layer in enumerate(layers) if layer.kv_source != index]
    unused = {layer + name for layer in shared for name in _KV_TENSORS}
    for name in tensors:
        if name in expected or name in unused or (name in _HEADS and _equal(tensors[name], tensors.get(_EMBEDDING))):
            continue
        if name in _HEADS:
            problem = f"has an output head ({name}) that differs from its embedding, which is not supported"
            yield problem, "Use a checkpoint with a tied head, as Gemma is published"
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
        # A token id outside the vocabulary would be read outside the embedding.
        elif ordering and not np.array_equal(np.sort(tensor.data.view("<i4")), np.arange(shape[0], dtype=np.int32)):
            problem = f"holds token ids in {TOKEN_ORDERING} that are not 0 to {shape[0] - 1}, each once"
            yield problem, f"It is damaged: {_AGAIN}"


def _equal(head: Tensor, embedding: Tensor | None) -> bool:
    """Whether two matrices have the same bytes; compared piece by piece, without memory for whole ones."""
    if embedding is None or (head.format, head.shape) != (embedding.format, embedding.shape):
        return False
    if not np.array_equal(head.factor, embedding.factor):
        return False
    left, right = head.data, embedding.data
    pieces = (slice(start, start + _COMPARED_BYTES) for start in range(0, len(left), _COMPARED_BYTES))
    return all(np.array_equal(left[piece], right[piece]) for piece in pieces)
