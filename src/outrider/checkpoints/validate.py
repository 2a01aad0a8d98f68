"""The check every checkpoint passes before anything is made of it: the tensors are the ones its config implies."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from outrider.checkpoints.checkpoint import Tensor
from outrider.checkpoints.config import AssistantConfig, Layer, ModelConfig
from outrider.errors import CheckpointError

_KV_OF_SHARED = re.compile(r"layers\.(\d+)\.self_attn\.(?:[kv]_proj|[kv]_norm)\.weight")
_UNTIED = ("lm_head.weight", "output.weight")


def expected_shapes(config: ModelConfig | AssistantConfig) -> dict[str, tuple[int, ...]]:
    """Neutral name -> shape of every tensor that a checkpoint of this config holds."""
    if isinstance(config, AssistantConfig):
        return _text_shapes(config.text) | _assistant_shapes(config)
    return _text_shapes(config)


def validate(config: ModelConfig | AssistantConfig, tensors: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The tensors that make up the model, in order of layer: all there, none unknown, each of its shape and kind.

    Keys and values of layers that share another's are left out: published checkpoints carry them, and nobody reads
    them.

    Raises:
        CheckpointError: names the first tensor that is missing, unknown, or of another shape than the config implies.
    """
    text = config.text if isinstance(config, AssistantConfig) else config
    _check_config(text, path)
    expected = expected_shapes(config)
    for name in tensors:
        if name not in expected and not _is_unread_kv(name, text):
            raise _unknown(name, path)
    for name, shape in expected.items():
        if name not in tensors:
            raise CheckpointError(
                f"lacks the tensor {name} {shape}",
                path=path,
                remedy="The file is incomplete, or its settings describe another model: download or convert it again",
            )
        _check_tensor(tensors[name], shape, path)
    if isinstance(config, AssistantConfig) and config.use_ordered_embeddings:
        _check_ordering(tensors["masked_embedding.token_ordering"], path)
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
        shapes["masked_embedding.token_ordering"] = (config.text.vocab_size,)
    return shapes


def _check_config(config: ModelConfig, path: Path) -> None:
    """What no single setting can say wrong, but two together can."""
    for index, layer in enumerate(config.layers):
        if config.heads % layer.kv_heads:
            raise CheckpointError(
                f"gives layer {index} {config.heads} query heads for {layer.kv_heads} key-value heads, which does not "
                "divide evenly",
                path=path,
                remedy="Its settings are inconsistent: download or convert it again",
            )
    experts = config.experts
    if experts and experts.top_k > experts.count:
        raise CheckpointError(
            f"uses {experts.top_k} experts per token but has {experts.count}",
            path=path,
            remedy="Its settings are inconsistent: download or convert it again",
        )


def _check_tensor(tensor: Tensor, shape: tuple[int, ...], path: Path) -> None:
    if tensor.shape != shape:
        raise CheckpointError(
            f"holds the tensor {tensor.name} in the shape {tensor.shape}, but its settings imply {shape}",
            path=path,
            remedy="The settings describe another model than the tensors: download or convert it again",
        )
    ordering = tensor.name == "masked_embedding.token_ordering"
    if ordering != (tensor.format == "I32") or (len(shape) == 1 and tensor.format not in ("F32", "F16", "BF16", "I32")):
        raise CheckpointError(
            f"stores the tensor {tensor.name} as {tensor.format}",
            path=path,
            remedy=f"Convert it again with this tensor as {'I32' if ordering else 'F32'}",
        )


def _check_ordering(ordering: Tensor, path: Path) -> None:
    """Every token exactly once: an id outside the vocabulary would be a read outside the embedding table."""
    ids = ordering.data.view("<i4")
    if not np.array_equal(np.sort(ids), np.arange(len(ids), dtype=np.int32)):
        raise CheckpointError(
            f"lists tokens in masked_embedding.token_ordering that are not the ids 0 to {len(ids) - 1}, each once",
            path=path,
            remedy="The file is damaged: download or convert it again",
        )


def _is_unread_kv(name: str, config: ModelConfig) -> bool:
    match = _KV_OF_SHARED.fullmatch(name)
    if not match or int(match[1]) >= len(config.layers):
        return False
    return config.layers[int(match[1])].kv_source != int(match[1])


def _unknown(name: str, path: Path) -> CheckpointError:
    if name in _UNTIED:
        return CheckpointError(
            f"has an output head of its own ({name}), and only models whose head is the embedding are supported",
            path=path,
            remedy="Use a checkpoint with a tied head, as Gemma is published",
        )
    return CheckpointError(
        f"holds the tensor {name}, which is no part of the Gemma models that are supported",
        path=path,
        remedy="Use a checkpoint of a plain Gemma 3 or Gemma 4 model, with adapters merged into it",
    )
