"""config.json of a Hugging Face folder -> ModelConfig or AssistantConfig.

The reference is the text part of transformers' gemma3, gemma4, gemma4_unified and the two assistants. Older and newer
spellings are both read: `global_head_dim` and `num_global_key_value_heads` or `per_layer_config`;
`rope_theta`, `rope_local_base_freq` and `rope_scaling` or `rope_parameters`.
"""

from __future__ import annotations

import math
from typing import Any

from outrider.checkpoints.config import AssistantConfig, Experts, Kind, Layer, ModelConfig, kv_sources, make_layers
from outrider.checkpoints.hf.rope import ropes
from outrider.checkpoints.settings import MAX_LAYERS, MAX_SIZE, Settings

_MODELS = ("gemma3", "gemma4", "gemma4_unified")
_ASSISTANTS = ("gemma4_assistant", "gemma4_unified_assistant")
_TEXT = tuple(f"{model}_text" for model in _MODELS)
_MAX_END_TOKENS = 64
_KINDS: dict[str, Kind] = {"sliding_attention": "sliding", "full_attention": "full"}

# Keys of any transformers config that do not affect a forward pass: provenance, training, memory layout.
_DESCRIPTIVE = frozenset(
    """
    _attn_implementation _attn_implementation_autoset _from_model_config _name_or_path _sliding_window_pattern
    architectures attention_dropout auto_map cache_implementation chunk_size_feed_forward dtype finetuning_task
    id2label initializer_range is_decoder is_encoder_decoder label2id model_name model_type output_attentions
    output_hidden_states pad_token_id prefix problem_type return_dict task_specific_params tokenizer_class torch_dtype
    transformers_version unsloth_fixed unsloth_version use_cache
    """.split()  # noqa: SIM905 (a list would take a line per word)
)
# Keys beside a text_config: the vision and audio encoders, and the ids of their placeholder tokens.
_MULTIMODAL = frozenset(
    """
    audio_config audio_token_id audio_token_index boa_token_id boa_token_index boi_token_id boi_token_index
    eoa_token_id eoa_token_index eoi_token_id eoi_token_index image_token_id image_token_index mm_tokens_per_image
    video_token_id video_token_index vision_config vision_soft_tokens_per_image
    """.split()  # noqa: SIM905 (a list would take a line per word)
)


def hf_config(config: Settings, generation: Settings) -> ModelConfig | AssistantConfig:
    """The config that config.json describes; end tokens are those of generation_config.json too.

    Raises:
        CheckpointError: a model type that is not supported, a setting that is missing, out of range, or not
            understood.
    """
    kind = config.text("model_type")
    if kind in _TEXT:
        return _text(config, kind, _end_token_ids(config, generation), reads_target=False)
    if kind not in (*_MODELS, *_ASSISTANTS):
        known = ", ".join((*_MODELS, *_ASSISTANTS, *_TEXT))
        problem = f"describes a model of type {kind!r}, which is not supported"
        raise config.fault(problem, f"Use a model of one of the types {known}")
    text, text_kind = config.section("text_config"), f"{kind.removesuffix('_assistant')}_text"
    if (nested := text.text("model_type", text_kind)) != text_kind:
        raise config.fault(f"nests a {nested!r} text model in a {kind!r} model")
    config.skip("bos_token_id")
    model = _text(text, text_kind, _end_token_ids(config, generation, text), reads_target=kind in _ASSISTANTS)
    config.skip("tie_word_embeddings")
    found = _assistant(config, model) if kind in _ASSISTANTS else model
    config.refuse_unread(_DESCRIPTIVE | _MULTIMODAL)
    return found


def is_untied(config: Settings) -> bool:
    """Whether config.json, at one of its levels, says that the head is not the embedding. Raises as `hf_config`."""
    levels = [config, config.section("text_config")] if config.has("text_config") else [config]
    return not all([level.flag("tie_word_embeddings", True) for level in levels])


def _assistant(config: Settings, text: ModelConfig) -> AssistantConfig:
    backbone, ordered = config.size("backbone_hidden_size"), config.flag("use_ordered_embeddings", False)
    centroids, top_k = config.size("num_centroids", 2048), config.size("centroid_intermediate_top_k", 32)
    return AssistantConfig(text, backbone, centroids if ordered else 0, top_k if ordered else 0)


def _text(config: Settings, kind: str, ends: tuple[int, ...], *, reads_target: bool) -> ModelConfig:
    gemma4, has_ple = kind != "gemma3_text", kind == "gemma4_text"
    heads, vocab_size = config.size("num_attention_heads"), config.size("vocab_size")
    ple_width = config.integer("hidden_size_per_layer_input", 256 if has_ple else 0, high=MAX_SIZE if has_ple else 0)
    ple_vocab = config.integer("vocab_size_per_layer_input", vocab_size) if gemma4 else vocab_size
    if ple_width and ple_vocab != vocab_size:
        raise config.fault(f"has per-layer embeddings for {ple_vocab} tokens but a vocabulary of {vocab_size}")
    _refuse_other_arithmetic(config, gemma4=gemma4)
    model = ModelConfig(
        architecture="gemma4" if gemma4 else "gemma3",
        vocab_size=vocab_size,
        hidden_size=config.size("hidden_size"),
        heads=heads,
        layers=_layers(config, gemma4=gemma4, reads_target=reads_target, heads=heads),
        rms_norm_eps=config.number("rms_norm_eps", 1e-6),
        attention_scale=1.0 if gemma4 else 1 / math.sqrt(config.number("query_pre_attn_scalar", 256, low=1e-3)),
        logit_softcap=config.number("final_logit_softcapping", 0.0) or None,
        ple_width=ple_width,
        experts=_experts(config) if gemma4 else None,
        context_length=config.integer("max_position_embeddings", 131072, low=1),
        bos_token_id=config.integer("bos_token_id", 2, high=vocab_size - 1),
        end_token_ids=ends,
    )
    config.refuse_unread(_DESCRIPTIVE)
    return model


def _layers(config: Settings, *, gemma4: bool, reads_target: bool, heads: int) -> tuple[Layer, ...]:
    count = config.integer("num_hidden_layers", low=1, high=MAX_LAYERS)
    kinds = _layer_kinds(config, count)
    if gemma4 and kinds[-1] != "full":
        raise config.fault("ends in a sliding layer; the last layer of Gemma 4 has full attention")
    width = config.size("intermediate_size")
    window = config.integer("sliding_window", 512 if gemma4 else 4096, low=1)
    k_eq_v = config.flag("attention_k_eq_v", False) if gemma4 else False
    heads_of = _head_shapes(config, kinds, heads, gemma4=gemma4, k_eq_v=k_eq_v)
    shared = config.integer("num_kv_shared_layers", 0, high=count) if gemma4 else 0
    if reads_target and shared not in (0, count):
        raise config.fault(f"shares {shared} of its {count} layers; a drafter reads all keys and values of its target")
    wide = config.flag("use_double_wide_mlp", False) if gemma4 else False
    sources = kv_sources(kinds, None if reads_target else shared, config.fault)
    rope_of = ropes(config, {kind: heads_of[kinds.index(kind)][0] for kind in kinds}, gemma4=gemma4)
    return make_layers(
        kinds,
        rope_of,
        sources,
        [kv_heads for _, kv_heads in heads_of],
        [2 * width if wide and source != index else width for index, source in enumerate(sources)],
        window,
        k_eq_v=k_eq_v and not reads_target,
    )


def _layer_kinds(config: Settings, count: int) -> tuple[Kind, ...]:
    period = config.integer("sliding_window_pattern", 6, low=1)
    if not config.has("layer_types"):
        return tuple("sliding" if (index + 1) % period else "full" for index in range(count))
    names = config.texts("layer_types")
    if unknown := [name for name in names if name not in _KINDS]:
        raise config.fault(f"has a layer of type {unknown[0]!r}, which is not one of {', '.join(_KINDS)}")
    if len(names) != count:
        raise config.fault(f"lists {len(names)} layer_types for {count} layers")
    return tuple(_KINDS[name] for name in names)


def _head_shapes(
    config: Settings, kinds: tuple[Kind, ...], heads: int, *, gemma4: bool, k_eq_v: bool
) -> list[tuple[int, int]]:
    """(head_dim, kv_heads) of each layer."""

    def kv_heads_of(layer: Settings, key: str, default: int | None = None) -> int:
        return layer.integer(key, default, low=1, high=heads)

    sliding = full = config.size("head_dim", 256, low=2), kv_heads_of(config, "num_key_value_heads")
    if gemma4:
        # As in the reference: num_global_key_value_heads applies only where keys are values.
        global_heads = kv_heads_of(config, "num_global_key_value_heads", sliding[1])
        full = config.size("global_head_dim", 512, low=2), global_heads if k_eq_v else sliding[1]
    shapes = [full if kind == "full" else sliding for kind in kinds]
    if gemma4 and config.has("per_layer_config"):
        overrides, shapes = config.section("per_layer_config"), [sliding] * len(kinds)
        for index in (index for index in range(len(kinds)) if overrides.has(str(index))):
            layer = overrides.section(str(index))
            head_dim = layer.size("head_dim", sliding[0], low=2)
            shapes[index] = head_dim, kv_heads_of(layer, "num_key_value_heads", sliding[1])
            layer.refuse_unread()
        overrides.refuse_unread()
    for kind in set(kinds):
        if len({shape for shape, of in zip(shapes, kinds, strict=True) if of == kind}) > 1:
            raise config.fault(f"gives its {kind} layers heads of different shapes")
    return shapes


def _experts(config: Settings) -> Experts | None:
    if not config.flag("enable_moe_block", False):
        config.skip("num_experts", "top_k_experts", "moe_intermediate_size")
        return None
    count = config.size("num_experts")
    return Experts(count, config.integer("top_k_experts", low=1, high=count), config.size("moe_intermediate_size"))


def _refuse_other_arithmetic(config: Settings, *, gemma4: bool) -> None:
    """Refuse settings whose arithmetic is not implemented."""
    config.skip("tie_word_embeddings")
    if config.text("hidden_activation", "gelu_pytorch_tanh") != "gelu_pytorch_tanh":
        raise config.fault("uses another activation than gelu_pytorch_tanh, which is not supported")
    if config.flag("attention_bias", False):
        raise config.fault("has attention biases, which are not supported")
    if config.has("attn_logit_softcapping") and config.number("attn_logit_softcapping"):
        raise config.fault("caps its attention scores, which is not supported")
    config.skip("attn_logit_softcapping")
    # "vision" concerns image tokens only; text is causal there too.
    if (raw := config.raw("use_bidirectional_attention")) not in (None, False, "vision"):
        raise config.fault("attends in both directions, so it is an encoder and cannot generate text")
    if gemma4 and raw is False:
        raise config.fault('sets use_bidirectional_attention to false; Gemma 4 allows null, "vision" and "all"')


def _end_token_ids(*configs: Settings) -> tuple[int, ...]:
    """The end tokens that any of the configs names."""
    ids: set[int] = set()
    for config in configs:
        raw: Any = config.raw("eos_token_id")
        found = raw if isinstance(raw, list) else [] if raw is None else [raw]
        if len(found) > _MAX_END_TOKENS or not all(type(item) is int and item >= 0 for item in found):
            raise config.fault("has an eos_token_id that is no token id or list of token ids")
        ids.update(found)
    return tuple(sorted(ids)) or (1,)
