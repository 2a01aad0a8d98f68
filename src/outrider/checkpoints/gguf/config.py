"""GGUF metadata -> ModelConfig or AssistantConfig, for the architectures gemma3, gemma4 and gemma4-assistant.

The tensor table gives what the metadata lacks: the vocabulary size, which layers reuse their keys as values, and how
many dims the full layers rotate (`rope_freqs.weight`).
"""

from __future__ import annotations

import math
from typing import cast

import numpy as np

from outrider.checkpoints.checkpoint import BASE_MODEL
from outrider.checkpoints.config import (
    AssistantConfig,
    Experts,
    Kind,
    ModelConfig,
    Rope,
    Suppressed,
    kv_sources,
    make_layers,
)
from outrider.checkpoints.gguf.file import GGUFFile
from outrider.checkpoints.gguf.names import ROPE_FREQS, gguf_name
from outrider.checkpoints.ignored import GGUF_MODEL, keys
from outrider.checkpoints.settings import MAX_LAYERS, Settings

_SUPPORTED = ("gemma3", "gemma4", "gemma4-assistant")
_GEMMA3_27B_LAYERS = 62


_OTHER_KINDS = {
    "adapter": ("is a LoRA adapter, not a model", BASE_MODEL),
    "mmproj": ("is a projector (the encoder of images or audio), not a model", "Pass the model's own GGUF file"),
    "imatrix": ("is an importance matrix, not a model", "Pass the model's own GGUF file"),
    "vocab": ("holds a vocabulary and no weights", "Pass the model's own GGUF file"),
}
"""`general.type` of files that are no models -> what they are, what to do."""


def gguf_config(file: GGUFFile) -> ModelConfig | AssistantConfig:
    """The config that a GGUF file's metadata and tensor table describe.

    Raises:
        CheckpointError: an architecture that is not supported, a setting that is missing, out of range, or not
            understood.
    """
    general = Settings(file.values, file.path, "general.")
    architecture = general.text("architecture")
    kind = "mmproj" if architecture == "clip" else general.text("type", "model")
    if kind != "model":
        what = f"holds no model but a file of type {kind!r}", "Use the file of the model itself"
        raise file.fault(*_OTHER_KINDS.get(kind, what))
    if architecture not in _SUPPORTED:
        problem = f"holds a model of architecture {architecture!r}, which is not supported"
        raise file.fault(problem, f"Use a model of one of the architectures {', '.join(_SUPPORTED)}")
    settings = Settings(file.values, file.path, f"{architecture}.")
    config = (
        _drafter(file, settings)
        if architecture == "gemma4-assistant"
        else _text(file, settings, gemma4=architecture == "gemma4", reads_target=False)
    )
    settings.refuse_unread(keys(GGUF_MODEL))
    return config


def _text(file: GGUFFile, settings: Settings, *, gemma4: bool, reads_target: bool) -> ModelConfig:
    count = settings.integer("block_count", low=1, high=MAX_LAYERS)
    heads, hidden_size = settings.size("attention.head_count"), settings.size("embedding_length")
    tokenizer, vocab_size = Settings(file.values, file.path, "tokenizer.ggml."), _vocab_size(file)
    if (stated := settings.integer("vocab_size", vocab_size)) != vocab_size:
        raise settings.fault(f"states {stated} tokens, but its embedding has {vocab_size} rows")
    kinds = _kinds(settings, count, period=None if gemma4 else 6)
    shared = settings.integer("attention.shared_kv_layers", 0, high=count) if gemma4 else 0
    sources = kv_sources(kinds, None if reads_target else shared, settings.fault)
    layers = make_layers(
        kinds,
        _gemma4_ropes(file, settings) if gemma4 else _gemma3_ropes(settings),
        sources,
        settings.sizes("attention.head_count_kv", count, high=heads),
        settings.sizes("feed_forward_length", count),
        settings.integer("attention.sliding_window", low=1),
        k_eq_v=gemma4 and not reads_target and _keys_are_values(file, kinds, sources),
    )
    # Gemma 3 27B alone scales its queries by hidden_size / heads instead of head_dim. No setting records it; the number
    # of layers identifies the model.
    scaled = hidden_size / heads if count == _GEMMA3_27B_LAYERS else layers[0].head_dim
    return ModelConfig(
        architecture="gemma4" if gemma4 else "gemma3",
        vocab_size=vocab_size,
        hidden_size=hidden_size,
        heads=heads,
        layers=layers,
        rms_norm_eps=settings.number("attention.layer_norm_rms_epsilon"),
        attention_scale=1.0 if gemma4 else 1 / math.sqrt(scaled),
        logit_softcap=settings.number("final_logit_softcapping", 0.0) or None,
        ple_width=settings.size("embedding_length_per_layer_input", 0, low=0) if gemma4 else 0,
        experts=_experts(settings) if gemma4 else None,
        context_length=settings.integer("context_length", low=1),
        bos_token_id=tokenizer.integer("bos_token_id", high=vocab_size - 1),
        end_token_ids=_end_token_ids(tokenizer),
        suppressed=Suppressed(always=tokenizer.token_ids("suppress_tokens")).within(vocab_size),
    )


def _drafter(file: GGUFFile, settings: Settings) -> AssistantConfig:
    text = _text(file, settings, gemma4=True, reads_target=True)
    if settings.integer("nextn_predict_layers", len(text.layers)) != len(text.layers):
        raise settings.fault(
            f"sets {settings.name('nextn_predict_layers')} to other than its {len(text.layers)} layers"
        )
    centroids = file.table.get(gguf_name("masked_embedding.centroids.weight"))
    count = centroids.shape[0] if centroids else 0
    return AssistantConfig(
        text=text,
        backbone_hidden_size=settings.size("embedding_length_out"),
        num_centroids=count,
        # Converters write no key for it; every published drafter that has centroids scores 32 of them.
        centroid_top_k=min(settings.integer("centroid_top_k", 32, low=1), count) if centroids else 0,
    )


def _kinds(settings: Settings, count: int, *, period: int | None) -> tuple[Kind, ...]:
    """From a pattern for every layer, or (Gemma 3) from the period of the full layers."""
    key = "attention.sliding_window_pattern"
    if period is not None and isinstance(settings.raw(key, period), int):
        period = settings.integer(key, period, low=1, high=MAX_LAYERS)
        sliding = tuple((index + 1) % period > 0 for index in range(count))
    else:
        sliding = settings.flags(key, count)
    return cast(tuple[Kind, ...], tuple("sliding" if flag else "full" for flag in sliding))


def _gemma3_ropes(settings: Settings) -> dict[Kind, Rope]:
    dims = _head_dim(settings)
    return {
        "full": Rope(settings.number("rope.freq_base", low=1.0), dims, dims, _linear_factor(settings)),
        "sliding": Rope(settings.number("rope.freq_base_swa", 1e4, low=1.0), dims, dims),
    }


def _gemma4_ropes(file: GGUFFile, settings: Settings) -> dict[Kind, Rope]:
    if _linear_factor(settings) != 1.0:
        raise settings.fault("scales its rotary embedding, which is not defined for Gemma 4")
    full, sliding = _head_dim(settings), _head_dim(settings, "_swa")
    return {
        "full": Rope(settings.number("rope.freq_base", low=1.0), full, _rotated(file, full)),
        "sliding": Rope(settings.number("rope.freq_base_swa", low=1.0), sliding, sliding),
    }


def _head_dim(settings: Settings, suffix: str = "") -> int:
    """The one size of queries, keys, values and rotary embedding; a file in which they differ is refused."""
    key_length = f"attention.key_length{suffix}"
    head_dim = settings.size(key_length, low=2)
    for key in (f"attention.value_length{suffix}", f"rope.dimension_count{suffix}"):
        if (other := settings.integer(key, head_dim)) != head_dim:
            sizes = f"{settings.name(key)} to {other} and {settings.name(key_length)} to {head_dim}"
            raise settings.fault(f"sets {sizes}, which must be equal")
    return head_dim


def _linear_factor(settings: Settings) -> float:
    """The factor by which the full layers' rotary frequencies are divided."""
    kind = settings.text("rope.scaling.type", "none")
    if kind not in ("none", "linear"):
        problem = f"scales its rotary embedding by {kind!r}, which is not supported"
        raise settings.fault(problem, "Use a checkpoint without that scaling")
    factor = settings.number("rope.scaling.factor", 1.0, low=1e-3)
    return factor if kind == "linear" else 1.0


def _rotated(file: GGUFFile, head_dim: int) -> int:
    """How many dims of a full layer's head are rotated.

    The file stores proportional rope as one divisor of the frequency per pair: 1, or 1e30 for pairs that do not rotate.
    """
    tensor = file.table.get(ROPE_FREQS)
    if tensor is None or tensor.format != "F32" or tensor.shape != (head_dim // 2,):
        problem = f"lacks the tensor {ROPE_FREQS} ({head_dim // 2}) in F32, the rotary frequencies of the full layers"
        raise file.fault(problem, "Convert it again with a current converter")
    factors = tensor.float32()
    pairs = int(np.count_nonzero(factors == 1.0))
    if not (np.all(factors[:pairs] == 1.0) and np.all(factors[pairs:] >= 1e20)):
        problem = f"scales its rotary embedding with factors other than 1 and 1e30 ({ROPE_FREQS})"
        raise file.fault(f"{problem}, which is not supported", "Use a checkpoint with Gemma 4's rotary embedding")
    return 2 * pairs


def _keys_are_values(file: GGUFFile, kinds: tuple[Kind, ...], sources: tuple[int, ...]) -> bool:
    """True if no full layer has a value projection. If only some lack it, the shape check names those as missing."""
    full = [index for index, kind in enumerate(kinds) if kind == "full" and sources[index] == index]
    return not any(gguf_name(f"layers.{index}.self_attn.v_proj.weight") in file.table for index in full)


def _experts(settings: Settings) -> Experts | None:
    count = settings.size("expert_count", 0, low=0)
    if not count:
        settings.skip("expert_used_count", "expert_feed_forward_length")
        return None
    top_k = settings.integer("expert_used_count", low=1, high=count)
    return Experts(count, top_k, settings.size("expert_feed_forward_length"))


def _vocab_size(file: GGUFFile) -> int:
    embedding = file.table.get(name := gguf_name("embed_tokens.weight"))
    if embedding is None or len(embedding.shape) != 2:
        problem = f"lacks the matrix {name} (the embedding)"
        raise file.fault(problem, "The file is incomplete: download or convert it again")
    return embedding.shape[0]


def _end_token_ids(tokenizer: Settings) -> tuple[int, ...]:
    ids = {tokenizer.integer("eos_token_id")}
    ids |= {tokenizer.integer(key) for key in ("eot_token_id", "eom_token_id") if tokenizer.has(key)}
    return tuple(sorted(ids))
