"""GGUF tensor names to neutral names, and back."""

from __future__ import annotations

import re

_GLOBAL = {
    "token_embd.weight": "embed_tokens.weight",
    "output_norm.weight": "norm.weight",
    "per_layer_token_embd.weight": "embed_tokens_per_layer.weight",
    "per_layer_model_proj.weight": "per_layer_model_projection.weight",
    "per_layer_proj_norm.weight": "per_layer_projection_norm.weight",
    "nextn.pre_projection.weight": "pre_projection.weight",
    "nextn.post_projection.weight": "post_projection.weight",
    "masked_embd_centroids.weight": "masked_embedding.centroids.weight",
    "masked_embd_ordering": "masked_embedding.token_ordering",
}

_LAYER = {
    "attn_norm.weight": "input_layernorm.weight",
    "attn_q.weight": "self_attn.q_proj.weight",
    "attn_k.weight": "self_attn.k_proj.weight",
    "attn_v.weight": "self_attn.v_proj.weight",
    "attn_output.weight": "self_attn.o_proj.weight",
    "attn_q_norm.weight": "self_attn.q_norm.weight",
    "attn_k_norm.weight": "self_attn.k_norm.weight",
    "post_attention_norm.weight": "post_attention_layernorm.weight",
    "ffn_norm.weight": "pre_feedforward_layernorm.weight",
    "ffn_gate.weight": "mlp.gate_proj.weight",
    "ffn_up.weight": "mlp.up_proj.weight",
    "ffn_down.weight": "mlp.down_proj.weight",
    "post_ffw_norm.weight": "post_feedforward_layernorm.weight",
    "layer_output_scale.weight": "layer_scalar",
    "inp_gate.weight": "per_layer_input_gate.weight",
    "proj.weight": "per_layer_projection.weight",
    "post_norm.weight": "post_per_layer_input_norm.weight",
    # The router's input scale and the experts' output scale are named ".scale" of the tensor that they multiply.
    "ffn_gate_inp.weight": "router.proj.weight",
    "ffn_gate_inp.scale": "router.scale",
    "ffn_down_exps.scale": "router.per_expert_scale",
    "ffn_gate_up_exps.weight": "experts.gate_up_proj",
    "ffn_down_exps.weight": "experts.down_proj",
    "post_ffw_norm_1.weight": "post_feedforward_layernorm_1.weight",
    "post_ffw_norm_2.weight": "post_feedforward_layernorm_2.weight",
    "pre_ffw_norm_2.weight": "pre_feedforward_layernorm_2.weight",
}

ROPE_FREQS = "rope_freqs.weight"

# Vision and audio encoders, which some converters leave in the text model's file.
_IGNORED = ("v.", "a.", "mm.")
_OF_LAYER = re.compile(r"blk\.(\d{1,6})\.(.+)")
_NEUTRAL_OF_LAYER = re.compile(r"layers\.(\d{1,6})\.(.+)")
_GGUF_GLOBAL = {neutral: name for name, neutral in _GLOBAL.items()}
_GGUF_LAYER = {neutral: name for name, neutral in _LAYER.items()}


def neutral_name(name: str) -> str | None:
    """The neutral name of a GGUF tensor; the name itself if it is unknown; None if the text model does not use it.

    `rope_freqs.weight` is None too: `gguf_config` reads it into the config.
    """
    if name == ROPE_FREQS or name.startswith(_IGNORED):
        return None
    if match := _OF_LAYER.fullmatch(name):
        inner = _LAYER.get(match[2])
        return f"layers.{int(match[1])}.{inner}" if inner else name
    return _GLOBAL.get(name, name)


def gguf_name(neutral: str) -> str:
    """The GGUF name of a tensor.

    Raises:
        KeyError: no tensor has this neutral name.
    """
    if match := _NEUTRAL_OF_LAYER.fullmatch(neutral):
        return f"blk.{match[1]}.{_GGUF_LAYER[match[2]]}"
    return _GGUF_GLOBAL[neutral]
