"""GGUF metadata -> ModelConfig or AssistantConfig, for the architectures gemma3, gemma4 and gemma4-assistant.

What the metadata leaves to the reader is taken from the tensor table: the vocabulary size, which layers reuse their
keys as values, and how many dims the full layers turn (`rope_freqs.weight`).
"""

from __future__ import annotations

import math
from typing import cast

import numpy as np

from outrider.checkpoints.config import (
    AssistantConfig,
    Experts,
    Kind,
    Layer,
    ModelConfig,
    Rope,
    kv_sources,
)
from outrider.checkpoints.gguf.file import GGUFFile
from outrider.checkpoints.gguf.names import ROPE_FREQS
from outrider.checkpoints.settings import Settings
from outrider.errors import CheckpointError

_SUPPORTED = ("gemma3", "gemma4", "gemma4-assistant")
_MAX_LAYERS = 1024
_MAX_WIDTH = 1 << 24
_GEMMA3_27B_LAYERS = 62

# Said about the model, but not part of its arithmetic on text.
_DESCRIPTIVE = ("vocab_size", "mm.tokens_per_image", "block_size", "rope.scaling.original_context_length")

# Tokens that end an answer. Published configs list several; a converter writes one of them as "the" end token (an
# instruction-tuned Gemma 3's is <end_of_turn>), so, like llama.cpp, the others are found by their text.
_END_TOKENS = ("<eos>", "<end_of_turn>", "<turn|>", "<|tool_response>")


def gguf_config(file: GGUFFile) -> ModelConfig | AssistantConfig:
    """The config that a GGUF file's metadata and tensor table describe.

    Raises:
        CheckpointError: an architecture that is not supported, a setting that is missing, out of range, or not
            understood.
    """
    general = Settings(file.values, file.path)
    architecture = general.text("general.architecture")
    if architecture not in _SUPPORTED:
        raise CheckpointError(
            f"holds a model of architecture {architecture!r}, which is not supported",
            path=file.path,
            remedy=f"Use a model of one of the architectures {', '.join(_SUPPORTED)}",
        )
    settings = Settings(file.values, file.path, f"{architecture}.")
    config: ModelConfig | AssistantConfig
    if architecture == "gemma3":
        config = _gemma3(file, settings)
    elif architecture == "gemma4":
        config = _gemma4(file, settings, reads_target=False)
    else:
        config = _assistant(file, settings)
    settings.refuse_unread(_DESCRIPTIVE)
    return config


def _gemma3(file: GGUFFile, settings: Settings) -> ModelConfig:
    count = settings.integer("block_count", low=1, high=_MAX_LAYERS)
    hidden = settings.integer("embedding_length", low=1, high=_MAX_WIDTH)
    heads = settings.integer("attention.head_count", low=1, high=_MAX_WIDTH)
    head_dim = _head_dim(settings, "attention.key_length", "attention.value_length", "rope.dimension_count", 256)
    window = settings.integer("attention.sliding_window", low=1)
    kinds = _gemma3_kinds(settings, count)
    kv_heads = settings.integers("attention.head_count_kv", count, low=1, high=heads)
    widths = settings.integers("feed_forward_length", count, low=1, high=_MAX_WIDTH)
    full = Rope(settings.number("rope.freq_base", 1e6, low=1.0), head_dim, head_dim, _linear_factor(settings))
    sliding = Rope(settings.number("rope.freq_base_swa", 1e4, low=1.0), head_dim, head_dim)
    # Gemma 3 27B alone scales its queries by hidden / heads instead of by the head's size; no setting says so, and
    # the number of layers is what tells it apart.
    scaled = hidden / heads if count == _GEMMA3_27B_LAYERS else head_dim
    return ModelConfig(
        architecture="gemma3",
        vocab_size=_vocab_size(file),
        hidden_size=hidden,
        heads=heads,
        layers=tuple(
            Layer(
                kind=kind,
                head_dim=head_dim,
                kv_heads=kv_heads[index],
                kv_source=index,
                mlp_width=widths[index],
                window=window if kind == "sliding" else None,
                rope=sliding if kind == "sliding" else full,
                k_eq_v=False,
            )
            for index, kind in enumerate(kinds)
        ),
        rms_norm_eps=settings.number("attention.layer_norm_rms_epsilon"),
        attention_scale=1 / math.sqrt(scaled),
        value_norm=False,
        logit_softcap=_softcap(settings),
        ple_width=0,
        experts=None,
        context_length=settings.integer("context_length", low=1),
        bos_token_id=_tokenizer(file).integer("bos_token_id", high=_vocab_size(file) - 1),
        end_token_ids=_end_token_ids(file),
    )


def _gemma4(file: GGUFFile, settings: Settings, *, reads_target: bool) -> ModelConfig:
    count = settings.integer("block_count", low=1, high=_MAX_LAYERS)
    heads = settings.integer("attention.head_count", low=1, high=_MAX_WIDTH)
    kinds = _kinds(settings, count)
    shared = settings.integer("attention.shared_kv_layers", 0, high=count)
    kv_heads = settings.integers("attention.head_count_kv", count, low=1, high=heads)
    widths = settings.integers("feed_forward_length", count, low=1, high=_MAX_WIDTH)
    window = settings.integer("attention.sliding_window", low=1)
    dims = {
        "full": _head_dim(settings, "attention.key_length", "attention.value_length", "rope.dimension_count"),
        "sliding": _head_dim(
            settings, "attention.key_length_swa", "attention.value_length_swa", "rope.dimension_count_swa"
        ),
    }
    if _linear_factor(settings) != 1.0:
        raise settings.fault("scales its rotary embedding, which is not defined for Gemma 4")
    ropes = {
        "full": Rope(settings.number("rope.freq_base", low=1.0), dims["full"], _rotated(file, dims["full"])),
        "sliding": Rope(settings.number("rope.freq_base_swa", low=1.0), dims["sliding"], dims["sliding"]),
    }
    sources = (-1,) * count if reads_target else _sources(settings, kinds, shared)
    k_eq_v = False if reads_target else _keys_are_values(file, kinds, sources)
    return ModelConfig(
        architecture="gemma4",
        vocab_size=_vocab_size(file),
        hidden_size=settings.integer("embedding_length", low=1, high=_MAX_WIDTH),
        heads=heads,
        layers=tuple(
            Layer(
                kind=kind,
                head_dim=dims[kind],
                kv_heads=kv_heads[index if reads_target else sources[index]],
                kv_source=sources[index],
                mlp_width=widths[index],
                window=window if kind == "sliding" else None,
                rope=ropes[kind],
                k_eq_v=k_eq_v and kind == "full",
            )
            for index, kind in enumerate(kinds)
        ),
        rms_norm_eps=settings.number("attention.layer_norm_rms_epsilon"),
        attention_scale=1.0,
        value_norm=True,
        logit_softcap=_softcap(settings),
        ple_width=settings.integer("embedding_length_per_layer_input", 0, high=_MAX_WIDTH),
        experts=_experts(settings),
        context_length=settings.integer("context_length", low=1),
        bos_token_id=_tokenizer(file).integer("bos_token_id", high=_vocab_size(file) - 1),
        end_token_ids=_end_token_ids(file),
    )


def _assistant(file: GGUFFile, settings: Settings) -> AssistantConfig:
    text = _gemma4(file, settings, reads_target=True)
    if text.ple_width or text.experts:
        raise settings.fault("is a drafter with per-layer embeddings or experts, which no published drafter has")
    if settings.integer("nextn_predict_layers", len(text.layers)) != len(text.layers):
        raise settings.fault(
            f"sets {settings.name('nextn_predict_layers')} to other than its {len(text.layers)} layers"
        )
    centroids = file.table.get("masked_embd_centroids.weight")
    return AssistantConfig(
        text=text,
        backbone_hidden_size=settings.integer("embedding_length_out", low=1, high=_MAX_WIDTH),
        num_centroids=_num_centroids(settings, centroids.shape[0], text.vocab_size) if centroids else 0,
        # Converters write no key for it; every published drafter that has centroids scores 32 of them.
        centroid_top_k=min(settings.integer("centroid_top_k", 32, low=1), centroids.shape[0]) if centroids else 0,
        use_ordered_embeddings=centroids is not None,
    )


def _num_centroids(settings: Settings, count: int, vocab_size: int) -> int:
    if vocab_size % count:
        raise settings.fault(f"has {count} centroids, which do not divide its vocabulary of {vocab_size}")
    return count


def _gemma3_kinds(settings: Settings, count: int) -> tuple[Kind, ...]:
    """Files that say nothing mean every sixth layer; others name the period, or each layer."""
    pattern = settings.raw("attention.sliding_window_pattern")
    if pattern is None or isinstance(pattern, int):
        period = settings.integer("attention.sliding_window_pattern", 6, low=1, high=_MAX_LAYERS)
        return tuple("sliding" if (index + 1) % period else "full" for index in range(count))
    return _kinds(settings, count)


def _kinds(settings: Settings, count: int) -> tuple[Kind, ...]:
    sliding = settings.flags("attention.sliding_window_pattern", count)
    return cast(tuple[Kind, ...], tuple("sliding" if flag else "full" for flag in sliding))


def _head_dim(settings: Settings, keys: str, values: str, turned: str, default: int | None = None) -> int:
    """The one size of a head's queries, keys and values, all of whose dims take part in its rotary embedding."""
    head_dim = settings.integer(keys, default, low=2, high=_MAX_WIDTH)
    for key in (values, turned):
        if settings.integer(key, head_dim) != head_dim:
            raise settings.fault(
                f"sets {settings.name(key)} to {settings.integer(key)} and {settings.name(keys)} to {head_dim}, "
                "which must be equal"
            )
    if head_dim % 2:
        raise settings.fault(f"has heads of an odd size ({head_dim})")
    return head_dim


def _linear_factor(settings: Settings) -> float:
    """The factor by which the full layers' rotary frequencies are divided."""
    kind = settings.text("rope.scaling.type", "none")
    if kind not in ("none", "linear"):
        raise settings.fault(
            f"scales its rotary embedding by {kind!r}, which is not supported", "Use a checkpoint without that scaling"
        )
    factor = settings.number("rope.scaling.factor", 1.0, low=1e-3)
    return factor if kind == "linear" else 1.0


def _rotated(file: GGUFFile, head_dim: int) -> int:
    """How many dims of a full layer's head turn.

    Proportional rope is written as factors that divide the frequencies: 1 for the pairs that turn and 1e30, which
    stops a pair, for the rest.
    """
    tensor = file.table.get(ROPE_FREQS)
    if tensor is None or tensor.format != "F32" or tensor.shape != (head_dim // 2,):
        raise CheckpointError(
            f"lacks the tensor {ROPE_FREQS} ({head_dim // 2}) in F32, which says how full layers turn their heads",
            path=file.path,
            remedy="Convert it again with a current converter",
        )
    factors = tensor.data.view("<f4")
    pairs = int(np.count_nonzero(factors == 1.0))
    if not (np.all(factors[:pairs] == 1.0) and np.all(factors[pairs:] >= 1e20)):
        raise CheckpointError(
            f"scales its rotary embedding with factors other than 1 and 1e30 ({ROPE_FREQS}), which is not supported",
            path=file.path,
            remedy="Use a checkpoint with Gemma 4's proportional rotary embedding",
        )
    return 2 * pairs


def _sources(settings: Settings, kinds: tuple[Kind, ...], shared: int) -> tuple[int, ...]:
    try:
        return kv_sources(kinds, shared)
    except ValueError as error:
        raise settings.fault(str(error)) from error


def _keys_are_values(file: GGUFFile, kinds: tuple[Kind, ...], sources: tuple[int, ...]) -> bool:
    """True if the full layers have no value projection. Only all of them together are a model like that; one alone is
    a missing tensor, which the shape check will name."""
    full = [index for index, kind in enumerate(kinds) if kind == "full" and sources[index] == index]
    return bool(full) and not any(f"blk.{index}.attn_v.weight" in file.table for index in full)


def _softcap(settings: Settings) -> float | None:
    return settings.number("final_logit_softcapping", 0.0) or None


def _experts(settings: Settings) -> Experts | None:
    count = settings.integer("expert_count", 0, high=_MAX_WIDTH)
    if not count:
        settings.skip("expert_used_count", "expert_feed_forward_length")
        return None
    return Experts(
        count=count,
        top_k=settings.integer("expert_used_count", low=1, high=count),
        width=settings.integer("expert_feed_forward_length", low=1, high=_MAX_WIDTH),
    )


def _vocab_size(file: GGUFFile) -> int:
    embedding = file.table.get("token_embd.weight")
    if embedding is None or len(embedding.shape) != 2:
        raise CheckpointError(
            "lacks the tensor token_embd.weight (the embedding)",
            path=file.path,
            remedy="The file is incomplete: download or convert it again",
        )
    return embedding.shape[0]


def _tokenizer(file: GGUFFile) -> Settings:
    return Settings(file.values, file.path, "tokenizer.ggml.")


def _end_token_ids(file: GGUFFile) -> tuple[int, ...]:
    settings = _tokenizer(file)
    ids = {settings.integer("eos_token_id")}
    ids |= {settings.integer(key) for key in ("eot_token_id", "eom_token_id") if settings.has(key)}
    tokens = settings.texts("tokens") if settings.has("tokens") else []
    ids |= {tokens.index(text) for text in _END_TOKENS if text in tokens}
    return tuple(sorted(ids))
