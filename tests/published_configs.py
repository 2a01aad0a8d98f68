"""config.json as Google publishes it, shortened to what concerns text."""

from __future__ import annotations

from typing import Any

_ROPE = {
    "full_attention": {"partial_rotary_factor": 0.25, "rope_theta": 1000000.0, "rope_type": "proportional"},
    "sliding_attention": {"rope_theta": 10000.0, "rope_type": "default"},
}
_MODALITIES: dict[str, Any] = {
    "audio_token_id": 258881,
    "boa_token_id": 256000,
    "boi_token_id": 255999,
    "eoa_token_id": 258883,
    "eoi_token_id": 258882,
    "image_token_id": 258880,
    "dtype": "bfloat16",
    "transformers_version": "5.7.0.dev0",
}
_LEGACY: dict[str, Any] = {
    "_name_or_path": "",
    "architectures": None,
    "chunk_size_feed_forward": 0,
    "id2label": {"0": "LABEL_0", "1": "LABEL_1"},
    "is_encoder_decoder": False,
    "label2id": {"LABEL_0": 0, "LABEL_1": 1},
    "output_attentions": False,
    "output_hidden_states": False,
    "problem_type": None,
    "return_dict": True,
}
_TEXT: dict[str, Any] = {
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 2,
    "dtype": "bfloat16",
    "eos_token_id": 1,
    "global_head_dim": 512,
    "head_dim": 256,
    "hidden_activation": "gelu_pytorch_tanh",
    "initializer_range": 0.02,
    "max_position_embeddings": 131072,
    "model_type": "gemma4_text",
    "pad_token_id": 0,
    "rms_norm_eps": 1e-06,
    "rope_parameters": _ROPE,
    "tie_word_embeddings": True,
    "use_cache": True,
    "vocab_size": 262144,
}
_NO_EXPERTS: dict[str, Any] = {
    "enable_moe_block": False,
    "moe_intermediate_size": None,
    "num_experts": None,
    "top_k_experts": None,
}


def _kinds(sliding: int, times: int) -> list[str]:
    return (["sliding_attention"] * sliding + ["full_attention"]) * times


_E2B_ASSISTANT = {
    **_MODALITIES,
    "architectures": ["Gemma4AssistantForCausalLM"],
    "backbone_hidden_size": 1536,
    "centroid_intermediate_top_k": 32,
    "model_type": "gemma4_assistant",
    "num_centroids": 2048,
    "text_config": {
        **_TEXT,
        **_LEGACY,
        **_NO_EXPERTS,
        "attention_k_eq_v": False,
        "final_logit_softcapping": None,
        "hidden_size": 256,
        "hidden_size_per_layer_input": 0,
        "intermediate_size": 2048,
        "layer_types": _kinds(3, 1),
        "num_attention_heads": 4,
        "num_global_key_value_heads": None,
        "num_hidden_layers": 4,
        "num_key_value_heads": 1,
        "num_kv_shared_layers": 4,
        "sliding_window": 512,
        "use_bidirectional_attention": None,
        "use_double_wide_mlp": False,
        "vocab_size_per_layer_input": 0,
    },
    "tie_word_embeddings": True,
    "use_ordered_embeddings": True,
}
_E2B = {
    **_MODALITIES,
    "architectures": ["Gemma4ForConditionalGeneration"],
    "audio_config": {"model_type": "gemma4_audio"},
    "eos_token_id": [1, 106],
    "initializer_range": 0.02,
    "model_type": "gemma4",
    "text_config": {
        **_TEXT,
        **_NO_EXPERTS,
        "attention_k_eq_v": False,
        "final_logit_softcapping": 30.0,
        "hidden_size": 1536,
        "hidden_size_per_layer_input": 256,
        "intermediate_size": 6144,
        "layer_types": _kinds(4, 7),
        "num_attention_heads": 8,
        "num_global_key_value_heads": None,
        "num_hidden_layers": 35,
        "num_key_value_heads": 1,
        "num_kv_shared_layers": 20,
        "sliding_window": 512,
        "use_bidirectional_attention": None,
        "use_double_wide_mlp": True,
        "vocab_size_per_layer_input": 262144,
    },
    "tie_word_embeddings": True,
    "video_token_id": 258884,
    "vision_config": {"model_type": "gemma4_vision"},
    "vision_soft_tokens_per_image": 280,
}
_26B = {
    **_E2B,
    "audio_config": None,
    "eos_token_id": [1, 106, 50],
    "text_config": {
        **_TEXT,
        "attention_k_eq_v": True,
        "enable_moe_block": True,
        "final_logit_softcapping": 30.0,
        "hidden_size": 2816,
        "hidden_size_per_layer_input": 0,
        "intermediate_size": 2112,
        "layer_types": _kinds(5, 5),
        "moe_intermediate_size": 704,
        "num_attention_heads": 16,
        "num_experts": 128,
        "num_global_key_value_heads": 2,
        "num_hidden_layers": 30,
        "num_key_value_heads": 8,
        "num_kv_shared_layers": 0,
        "sliding_window": 1024,
        "top_k_experts": 8,
        "use_bidirectional_attention": "vision",
        "use_double_wide_mlp": False,
        "vocab_size_per_layer_input": 262144,
    },
}
_E4B = {
    **_E2B,
    "text_config": {
        **_E2B["text_config"],
        "hidden_size": 2560,
        "intermediate_size": 10240,
        "layer_types": _kinds(5, 7),
        "num_hidden_layers": 42,
        "num_key_value_heads": 2,
        "num_kv_shared_layers": 18,
        "use_double_wide_mlp": False,
    },
}
_12B = {
    **_E2B,
    "architectures": ["Gemma4UnifiedForConditionalGeneration"],
    "model_type": "gemma4_unified",
    "audio_config": {"model_type": "gemma4_unified_audio"},
    "vision_config": {"model_type": "gemma4_unified_vision"},
    "text_config": {
        **_TEXT,
        "attention_k_eq_v": True,
        "final_logit_softcapping": 30.0,
        "hidden_size": 3840,
        "intermediate_size": 15360,
        "layer_types": _kinds(5, 8),
        "max_position_embeddings": 262144,
        "model_type": "gemma4_unified_text",
        "num_attention_heads": 16,
        "num_global_key_value_heads": 1,
        "num_hidden_layers": 48,
        "num_key_value_heads": 8,
        "num_kv_shared_layers": 0,
        "sliding_window": 1024,
        "use_bidirectional_attention": "vision",
        "use_double_wide_mlp": False,
    },
}
_31B = {
    **_26B,
    "text_config": {
        **_26B["text_config"],
        **_NO_EXPERTS,
        "hidden_size": 5376,
        "intermediate_size": 21504,
        "layer_types": _kinds(5, 10),
        "max_position_embeddings": 262144,
        "num_attention_heads": 32,
        "num_global_key_value_heads": 4,
        "num_hidden_layers": 60,
        "num_key_value_heads": 16,
    },
}


def _dense_assistant(target: dict[str, Any], unified: bool = False) -> dict[str, Any]:
    """The drafter of one of the larger models: a dense head, and keys and values of its target's shapes."""
    text = target["text_config"]
    shared = ("num_attention_heads", "num_global_key_value_heads", "num_key_value_heads", "sliding_window")
    kind = "gemma4_unified" if unified else "gemma4"
    return {
        **_E2B_ASSISTANT,
        "backbone_hidden_size": text["hidden_size"],
        "model_type": f"{kind}_assistant",
        "text_config": {
            **_E2B_ASSISTANT["text_config"],
            **{name: text[name] for name in shared},
            "attention_k_eq_v": True,
            "hidden_size": 1024,
            "intermediate_size": 8192,
            "model_type": f"{kind}_text",
        },
        "use_ordered_embeddings": False,
    }


_E4B_ASSISTANT = {
    **_E2B_ASSISTANT,
    "backbone_hidden_size": 2560,
    "text_config": {**_E2B_ASSISTANT["text_config"], "num_key_value_heads": 2},
}
_GEMMA3_4B = {
    "architectures": ["Gemma3ForConditionalGeneration"],
    "boi_token_index": 255999,
    "eoi_token_index": 256000,
    "eos_token_id": [1, 106],
    "image_token_index": 262144,
    "initializer_range": 0.02,
    "mm_tokens_per_image": 256,
    "model_type": "gemma3",
    "text_config": {
        "hidden_size": 2560,
        "intermediate_size": 10240,
        "model_type": "gemma3_text",
        "num_attention_heads": 8,
        "num_hidden_layers": 34,
        "num_key_value_heads": 4,
        "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
        "sliding_window": 1024,
        "vocab_size": 262208,
    },
    "torch_dtype": "bfloat16",
    "transformers_version": "4.50.0.dev0",
    "vision_config": {"model_type": "siglip_vision_model"},
}
_GEMMA3_270M = {
    "_sliding_window_pattern": 6,
    "architectures": ["Gemma3ForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "attn_logit_softcapping": None,
    "bos_token_id": 2,
    "eos_token_id": 1,
    "final_logit_softcapping": None,
    "head_dim": 256,
    "hidden_activation": "gelu_pytorch_tanh",
    "hidden_size": 640,
    "initializer_range": 0.02,
    "intermediate_size": 2048,
    "layer_types": _kinds(5, 3),
    "max_position_embeddings": 32768,
    "model_type": "gemma3_text",
    "num_attention_heads": 4,
    "num_hidden_layers": 18,
    "num_key_value_heads": 1,
    "pad_token_id": 0,
    "query_pre_attn_scalar": 256,
    "rms_norm_eps": 1e-06,
    "rope_local_base_freq": 10000.0,
    "rope_scaling": None,
    "rope_theta": 1000000.0,
    "sliding_window": 512,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.55.0.dev0",
    "use_bidirectional_attention": False,
    "use_cache": True,
    "vocab_size": 262144,
}

PUBLISHED: dict[str, tuple[dict[str, Any], tuple[int, int, int, int, int]]] = {
    "gemma-4-E2B-it": (_E2B, (35, 512, 1, 1, 14)),
    "gemma-4-E2B-it-assistant": (_E2B_ASSISTANT, (4, 512, 1, 1, -1)),
    "gemma-4-E4B-it": (_E4B, (42, 512, 2, 2, 23)),
    "gemma-4-E4B-it-assistant": (_E4B_ASSISTANT, (4, 512, 2, 2, -1)),
    "gemma-4-12B-it": (_12B, (48, 512, 1, 8, 47)),
    "gemma-4-12B-it-assistant": (_dense_assistant(_12B, unified=True), (4, 512, 1, 8, -1)),
    "gemma-4-26B-A4B-it": (_26B, (30, 512, 2, 8, 29)),
    "gemma-4-26B-A4B-it-assistant": (_dense_assistant(_26B), (4, 512, 2, 8, -1)),
    "gemma-4-31B-it": (_31B, (60, 512, 4, 16, 59)),
    "gemma-4-31B-it-assistant": (_dense_assistant(_31B), (4, 512, 4, 16, -1)),
    "gemma-3-4b-it": (_GEMMA3_4B, (34, 256, 4, 4, 29)),
    "gemma-3-270m": (_GEMMA3_270M, (18, 256, 1, 1, 17)),
}
"""Name -> config, and (layers; head_dim and kv_heads of the last full layer; kv_heads of the first; kv_source)."""
