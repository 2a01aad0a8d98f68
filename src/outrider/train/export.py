"""A trained drafter as files: the published Hugging Face form, and a compact quantized GGUF."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
import transformers
from gguf import GGMLQuantizationType as Type

from outrider.backends import cpu
from outrider.loading import usable_cores
from outrider.train.model import FULL, SLIDING

_ARCHITECTURE = "gemma4-assistant"
_GLOBAL_NAMES = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "pre_projection.weight": "nextn.pre_projection.weight",
    "post_projection.weight": "nextn.post_projection.weight",
    "masked_embedding.centroids.weight": "masked_embd_centroids.weight",
    "masked_embedding.token_ordering": "masked_embd_ordering",
}
_LAYER_NAMES = {
    "input_layernorm.weight": "attn_norm.weight",
    "self_attn.q_proj.weight": "attn_q.weight",
    "self_attn.q_norm.weight": "attn_q_norm.weight",
    "self_attn.o_proj.weight": "attn_output.weight",
    "post_attention_layernorm.weight": "post_attention_norm.weight",
    "pre_feedforward_layernorm.weight": "ffn_norm.weight",
    "mlp.gate_proj.weight": "ffn_gate.weight",
    "mlp.up_proj.weight": "ffn_up.weight",
    "mlp.down_proj.weight": "ffn_down.weight",
    "post_feedforward_layernorm.weight": "post_ffw_norm.weight",
    "layer_scalar": "layer_output_scale.weight",
}


_BLOCK = 32


def compact(name: str) -> Type:
    """Q4_0 for the head, which is most of the file, and for the MLPs; Q8_0 for the rest."""
    return Type.Q4_0 if name == "token_embd.weight" or ".ffn_" in name else Type.Q8_0


def export_folder(assistant: transformers.Gemma4AssistantForCausalLM, folder: Path) -> None:
    """config.json and model.safetensors in bfloat16, as `from_pretrained` reads them."""
    half = copy.deepcopy(assistant).to(torch.bfloat16)  # type: ignore[arg-type]
    half.save_pretrained(folder)


def export_gguf(
    assistant: transformers.Gemma4AssistantForCausalLM, path: Path, kind: Callable[[str], Type] = compact
) -> None:
    """One file with the names of converted drafters; a width that is no multiple of 32 is padded to one.

    Args:
        kind: GGUF name of a matrix -> its type.
    """
    assistant, pool = padded(assistant), cpu.ThreadPool(usable_cores())
    config, text = assistant.config, assistant.config.get_text_config()
    writer = gguf.GGUFWriter(path, _ARCHITECTURE)
    _write_metadata(writer, config, text)
    for name, values in assistant.state_dict().items():
        if name == "lm_head.weight":
            continue
        to = _gguf_name(name)
        if name.endswith("token_ordering"):
            writer.add_tensor(to, values.numpy().astype(np.int32))
            continue
        array = values.float().numpy()
        if array.ndim == 1:
            writer.add_tensor(to, array)
        else:
            writer.add_tensor(to, _quantized(array, kind(to), pool), raw_dtype=kind(to))
    writer.add_tensor("rope_freqs.weight", _turned(text))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def padded(assistant: transformers.Gemma4AssistantForCausalLM) -> transformers.Gemma4AssistantForCausalLM:
    """The same drafter in a width that whole blocks make up; itself if it has one.

    The new dimensions stay zero throughout. A norm's mean square shrinks by the share that is zero, which its weight
    and its epsilon make good.
    """
    narrow = assistant.config.get_text_config().hidden_size
    wide = -(-narrow // _BLOCK) * _BLOCK
    if wide == narrow:
        return assistant
    config = copy.deepcopy(assistant.config)
    text = config.get_text_config()
    text.hidden_size, text.rms_norm_eps = wide, text.rms_norm_eps * narrow / wide
    made = transformers.Gemma4AssistantForCausalLM(config)
    with torch.no_grad():
        source = assistant.state_dict()
        for name, values in made.state_dict().items():
            values.zero_()[tuple(slice(0, size) for size in source[name].shape)] = source[name]
            if values.ndim == 1 and name.endswith("norm.weight") and not name.endswith("q_norm.weight"):
                values *= math.sqrt(narrow / wide)
    return made


def _quantized(
    array: np.ndarray[Any, np.dtype[np.float32]], kind: Type, pool: cpu.ThreadPool
) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """(rows, bytes) blocks."""
    if kind not in (Type.Q4_0, Type.Q8_0):
        return gguf.quants.quantize(array, kind)
    rows, columns = array.shape
    data = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    blocks, _, _ = cpu.quantize(kind.name, "F32", rows, columns, data, pool)
    return np.asarray(blocks).reshape(rows, -1)


def _gguf_name(name: str) -> str:
    if not name.startswith("model.layers."):
        return _GLOBAL_NAMES[name]
    _, _, index, inner = name.split(".", 3)
    return f"blk.{index}.{_LAYER_NAMES[inner]}"


def _turned(text: Any) -> np.ndarray[Any, np.dtype[np.float32]]:
    """(pairs of the full layers' dims,) divisors of their frequency: 1, or so much that a pair stands still."""
    pairs = text.per_layer_config[FULL].head_dim // 2
    turned = int(text.rope_parameters[FULL].get("partial_rotary_factor", 1.0) * pairs)
    return np.array([1.0] * turned + [1e30] * (pairs - turned), np.float32)


def _write_metadata(writer: gguf.GGUFWriter, config: Any, text: Any) -> None:
    full, sliding, layers = text.per_layer_config[FULL], text.per_layer_config[SLIDING], text.num_hidden_layers
    writer.add_name("MTP drafter")
    writer.add_context_length(text.max_position_embeddings)
    writer.add_embedding_length(text.hidden_size)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(text.intermediate_size)
    writer.add_head_count(text.num_attention_heads)
    kinds = [kind == SLIDING for kind in text.layer_types]
    writer.add_head_count_kv([(sliding if s else full).num_key_value_heads for s in kinds])
    writer.add_layer_norm_rms_eps(text.rms_norm_eps)
    writer.add_sliding_window(text.sliding_window)
    writer.add_rope_freq_base(text.rope_parameters[FULL]["rope_theta"])
    writer.add_key_length(full.head_dim)
    writer.add_value_length(full.head_dim)
    writer.add_rope_dimension_count(full.head_dim)
    for key in ("attention.key_length_swa", "attention.value_length_swa", "rope.dimension_count_swa"):
        writer.add_uint32(f"{_ARCHITECTURE}.{key}", sliding.head_dim)
    writer.add_float32(f"{_ARCHITECTURE}.rope.freq_base_swa", text.rope_parameters[SLIDING]["rope_theta"])
    writer.add_array(f"{_ARCHITECTURE}.attention.sliding_window_pattern", kinds)
    writer.add_uint32(f"{_ARCHITECTURE}.attention.shared_kv_layers", layers)
    writer.add_uint32(f"{_ARCHITECTURE}.embedding_length_per_layer_input", 0)
    writer.add_uint32(f"{_ARCHITECTURE}.embedding_length_out", config.backbone_hidden_size)
    writer.add_uint32(f"{_ARCHITECTURE}.nextn_predict_layers", layers)
    writer.add_bos_token_id(text.bos_token_id)
    writer.add_eos_token_id(text.eos_token_id[0] if isinstance(text.eos_token_id, list) else text.eos_token_id)
    if config.use_ordered_embeddings:
        writer.add_uint32(f"{_ARCHITECTURE}.centroid_top_k", config.centroid_intermediate_top_k)
