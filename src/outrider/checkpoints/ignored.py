"""The settings that are read by nobody, with the reason: everything else that a checkpoint sets is used or refused.

`docs/checkpoints.md` prints these tables. A name that ends in a dot stands for all keys that begin with it.
"""

from __future__ import annotations

from collections.abc import Mapping

Reasons = Mapping[str, tuple[str, ...]]
"""Reason -> keys."""

CONFIG: Reasons = {
    "where the model comes from": (
        *("_name_or_path", "architectures", "auto_map", "finetuning_task", "model_name", "task_specific_params"),
        *("tokenizer_class", "transformers_version", "unsloth_fixed", "unsloth_version"),
    ),
    "training, classification or other architectures": (
        *("attention_dropout", "chunk_size_feed_forward", "id2label", "initializer_range", "is_decoder"),
        *("is_encoder_decoder", "label2id", "prefix", "problem_type"),
    ),
    "how transformers runs the model": (
        *("_attn_implementation", "_attn_implementation_autoset", "_from_model_config", "cache_implementation"),
        *("output_attentions", "output_hidden_states", "return_dict", "use_cache"),
    ),
    "each tensor has a type of its own": ("dtype", "torch_dtype"),
    "texts are not padded": ("pad_token_id",),
    '"vision" concerns the tokens of images; what concerns text is refused': ("use_bidirectional_attention",),
    "`layer_types` says more, and is used where both are there": ("_sliding_window_pattern", "sliding_window_pattern"),
}
"""Of config.json, at every level."""

DRAFTER: Reasons = {
    "a drafter has no keys and values; it counts for `num_global_key_value_heads`": ("attention_k_eq_v",),
}
"""Of config.json, in the text_config of a drafter."""

ONLY_WITH: Reasons = {
    "enable_moe_block": ("num_experts", "top_k_experts", "moe_intermediate_size"),
    "use_ordered_embeddings": ("num_centroids", "centroid_intermediate_top_k"),
    "num_kv_shared_layers": ("use_double_wide_mlp",),
    "hidden_size_per_layer_input": ("vocab_size_per_layer_input",),
    "attention_k_eq_v": ("num_global_key_value_heads",),
}
"""Of config.json: keys that count only where the key before them is set, as in transformers."""

MODALITIES: Reasons = {
    "only the text model is loaded": (
        *("audio_config", "audio_token_id", "audio_token_index", "boa_token_id", "boa_token_index", "boi_token_id"),
        *("boi_token_index", "eoa_token_id", "eoa_token_index", "eoi_token_id", "eoi_token_index", "image_token_id"),
        *("image_token_index", "mm_tokens_per_image", "video_token_id", "video_token_index", "vision_config"),
        "vision_soft_tokens_per_image",
    ),
    "`text_config` has it": ("bos_token_id",),
}
"""Of config.json, beside a text_config."""

GENERATION: Reasons = {
    "where the settings come from": ("_from_model_config", "transformers_version"),
    "how transformers generates": (
        *("cache_config", "cache_implementation", "compile_config", "continuous_batching_config", "disable_compile"),
        *("low_memory", "max_cache_len", "max_time", "output_attentions", "output_hidden_states", "output_logits"),
        *("output_scores", "prefill_chunk_size", "return_dict_in_generate", "use_cache"),
    ),
    "drafting changes no token": (
        *("assistant_confidence_threshold", "assistant_early_exit", "assistant_ensemble_weight"),
        *("assistant_lookbehind", "is_assistant", "max_matching_ngram_size", "num_assistant_tokens"),
        *(
            "num_assistant_tokens_schedule",
            "prompt_lookup_num_tokens",
            "speculation_type",
            "target_lookbehind",
            "use_mtp",
        ),
    ),
    "a request sets its own": ("max_length", "num_return_sequences"),
    "it counts with `num_beams` alone, which is not supported": (
        *("diversity_penalty", "early_stopping", "length_penalty", "num_beam_groups"),
    ),
    "it changes no choice": ("remove_invalid_values", "renormalize_logits"),
    "texts are not padded": ("pad_token_id",),
    "the tokenizer has it": ("bos_token_id",),
}
"""Of generation_config.json."""

TOKENIZER_CONFIG: Reasons = {
    "tokenizer.json determines ids and texts": (
        *("add_bos_token", "add_eos_token", "add_prefix_space", "added_tokens_decoder", "backend"),
        *("clean_up_tokenization_spaces", "extra_special_tokens", "is_local", "legacy", "local_files_only"),
        *("sp_model_kwargs", "spaces_between_special_tokens", "tokenizer_class"),
        *("use_default_system_prompt", "use_fast"),
    ),
    "texts are neither padded nor truncated": ("model_max_length", "padding_side", "truncation_side"),
    "other programs' readers": ("auto_map", "processor_class", "response_schema"),
}
"""Of tokenizer_config.json."""

TOKENIZER: Reasons = {
    "texts are neither padded nor truncated": ("padding", "truncation"),
    "U+2581 is a space, and <0x0A> a byte, in every Gemma": ("decoder",),
    "the library checks it": ("version",),
}
"""Of tokenizer.json. Of `post_processor`, the first token alone is used: BOS."""

GGUF_MODEL: Reasons = {
    "only the text model is loaded": ("vision.", "audio.", "mm."),
    "it concerns scalings that are refused": ("rope.scaling.original_context_length",),
    "no program reads it": ("block_size",),
}
"""Of the keys under a GGUF file's architecture."""

GGUF_TOKENIZER: Reasons = {
    "every Gemma text begins with one BOS token": ("add_bos_token",),
    "a text to continue does not end in a token of its own": ("add_eos_token", "add_sep_token"),
    "another tokenizer's": (
        *("mask_token_id", "pre", "precompiled_charsmap", "remove_extra_whitespaces", "seperator_token_id"),
        "token_type_count",
    ),
}
"""Of the keys under `tokenizer.ggml.`."""


def keys(*tables: Reasons) -> tuple[str, ...]:
    """The keys of tables."""
    return tuple(key for table in tables for of_reason in table.values() for key in of_reason)
