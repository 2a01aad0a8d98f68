"""The check of every checkpoint before it is used: its tensors are those that its config implies."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path

import numpy as np

from outrider.arrays import Ints
from outrider.checkpoints.checkpoint import FLOAT_FORMATS, TOKEN_ORDERING, WEIGHT_FORMATS, Tensor
from outrider.checkpoints.config import AssistantConfig, Layer, ModelConfig
from outrider.errors import CheckpointError

_KV_TENSOR = re.compile(r"layers\.(\d+)\.self_attn\.(?:[kv]_proj|[kv]_norm)\.weight")
_AGAIN = "download or convert it again"
_Problem = tuple[str, str]  # what is wrong, what to do
_UNTIED = ("lm_head.weight", "output.weight")


def expected_shapes(config: ModelConfig | AssistantConfig) -> dict[str, tuple[int, ...]]:
    """Neutral name -> shape of every tensor that a checkpoint of this config holds."""
    if isinstance(config, AssistantConfig):
        return _text_shapes(config.text) | _assistant_shapes(config)
    return _text_shapes(config)


def validate(config: ModelConfig | AssistantConfig, tensors: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The model's tensors in order of layer: none missing, none unknown, each of its shape and a possible format.

    Key and value projections of layers that share another layer's cache are left out: published checkpoints hold them,
    and no pass reads them.

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


def _text_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    hidden, count, ple = config.hidden_size, len(config.layers), config.ple_width
    shapes: dict[str, tuple[int, ...]] = {"embed_tokens.weight": (config.vocab_size, hidden)}
    if ple:
        shapes["embed_tokens_per_layer.weight"] = (config.vocab_size, count * ple)
        shapes["per_layer_model_projection.weight"] = (count * ple, hidden)
        shapes["per_layer_projection_norm.weight"] = (ple,)
    for index, layer in enumerate(config.layers):
        for name, shape in _layer_shapes(config, index, layer).items():
            shapes[f"layers.{index}.{name}"] = shape
    shapes["norm.weight"] = (hidden,)
    return shapes


def _layer_shapes(config: ModelConfig, index: int, layer: Layer) -> dict[str, tuple[int, ...]]:
    hidden, queries, keys = config.hidden_size, config.heads * layer.head_dim, layer.kv_heads * layer.head_dim
    shapes: dict[str, tuple[int, ...]] = {
        "input_layernorm.weight": (hidden,),
        "self_attn.q_proj.weight": (queries, hidden),
        "self_attn.q_norm.weight": (layer.head_dim,),
    }
    if layer.kv_source == index:
        shapes["self_attn.k_proj.weight"] = (keys, hidden)
        shapes["self_attn.k_norm.weight"] = (layer.head_dim,)
        if not layer.k_eq_v:
            shapes["self_attn.v_proj.weight"] = (keys, hidden)
    shapes |= {
        "self_attn.o_proj.weight": (hidden, queries),
        "post_attention_layernorm.weight": (hidden,),
        "pre_feedforward_layernorm.weight": (hidden,),
        "mlp.gate_proj.weight": (layer.mlp_width, hidden),
        "mlp.up_proj.weight": (layer.mlp_width, hidden),
        "mlp.down_proj.weight": (hidden, layer.mlp_width),
        "post_feedforward_layernorm.weight": (hidden,),
    }
    if config.experts:
        experts = config.experts
        shapes |= {
            "router.proj.weight": (experts.count, hidden),
            "router.scale": (hidden,),
            "router.per_expert_scale": (experts.count,),
            "experts.gate_up_proj": (experts.count, 2 * experts.width, hidden),
            "experts.down_proj": (experts.count, hidden, experts.width),
            "post_feedforward_layernorm_1.weight": (hidden,),
            "post_feedforward_layernorm_2.weight": (hidden,),
            "pre_feedforward_layernorm_2.weight": (hidden,),
        }
    if config.ple_width:
        shapes |= {
            "per_layer_input_gate.weight": (config.ple_width, hidden),
            "per_layer_projection.weight": (hidden, config.ple_width),
            "post_per_layer_input_norm.weight": (hidden,),
        }
    if config.architecture == "gemma4":
        shapes["layer_scalar"] = (1,)
    return shapes


def _assistant_shapes(config: AssistantConfig) -> dict[str, tuple[int, ...]]:
    hidden, backbone = config.text.hidden_size, config.backbone_hidden_size
    shapes: dict[str, tuple[int, ...]] = {
        "pre_projection.weight": (hidden, 2 * backbone),
        "post_projection.weight": (backbone, hidden),
    }
    if config.use_ordered_embeddings:
        shapes["masked_embedding.centroids.weight"] = (config.num_centroids, hidden)
        shapes[TOKEN_ORDERING] = (config.text.vocab_size,)
    return shapes


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
    text = config.text if isinstance(config, AssistantConfig) else config
    for name in tensors:
        if name in expected or _is_shared_kv(name, text):
            continue
        if name in _UNTIED:
            problem = (
                f"has an output head of its own ({name}), and only models whose head is the embedding are supported"
            )
            yield problem, "Use a checkpoint with a tied head, as Gemma is published"
        remedy = "Use a checkpoint of a plain Gemma 3 or Gemma 4 model, with adapters merged into it"
        yield f"holds the tensor {name}, which is no part of the Gemma models that are supported", remedy
    for name, shape in expected.items():
        tensor, ordering = tensors.get(name), name == TOKEN_ORDERING
        if tensor is None:
            remedy = f"It is incomplete, or its settings describe another model: {_AGAIN}"
            yield f"lacks the tensor {name} {shape}", remedy
        elif tensor.shape != shape:
            remedy = f"The settings describe another model than the tensors: {_AGAIN}"
            yield f"holds the tensor {name} in the shape {tensor.shape}, but its settings imply {shape}", remedy
        elif tensor.format not in (("I32",) if ordering else FLOAT_FORMATS if len(shape) == 1 else WEIGHT_FORMATS):
            remedy = f"Convert it again with this tensor as {'I32' if ordering else 'F32'}"
            yield f"stores the tensor {name} as {tensor.format}", remedy
        elif ordering and not _is_permutation(tensor.data.view("<i4")):
            remedy = f"It is damaged: {_AGAIN}"
            yield f"holds token ids in {TOKEN_ORDERING} that are not 0 to {shape[0] - 1}, each once", remedy


def _is_permutation(ids: Ints) -> bool:
    """Every id once. An id outside the vocabulary would read outside the embedding table."""
    return np.array_equal(np.sort(ids), np.arange(len(ids), dtype=np.int32))


def _is_shared_kv(name: str, config: ModelConfig) -> bool:
    match = _KV_TENSOR.fullmatch(name)
    if not match or int(match[1]) >= len(config.layers):
        return False
    return config.layers[int(match[1])].kv_source != int(match[1])
