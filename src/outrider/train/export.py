"""A trained drafter as files: a Hugging Face folder as drafters are published, and a compact quantized GGUF."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
import transformers
from gguf import GGMLQuantizationType as Type

from outrider.arrays import Bytes, Floats
from outrider.backends import cpu
from outrider.checkpoints.gguf.names import ROPE_FREQS, gguf_name
from outrider.checkpoints.hf.names import neutral_name
from outrider.cores import cores
from outrider.train.model import FULL, SLIDING

_ARCHITECTURE = "gemma4-assistant"


def compact(name: str) -> Type:
    """Q4_0 for the head, which is most of the file, and for the MLPs; Q8_0 for the rest."""
    return Type.Q4_0 if name == "embed_tokens.weight" or ".mlp." in name else Type.Q8_0


def export_folder(assistant: transformers.Gemma4AssistantForCausalLM, folder: Path) -> None:
    """config.json and model.safetensors in bfloat16, as `from_pretrained` reads them."""
    half = copy.deepcopy(assistant).to(torch.bfloat16)  # type: ignore[arg-type]
    half.save_pretrained(folder)


def export_gguf(
    assistant: transformers.Gemma4AssistantForCausalLM, path: Path, kind: Callable[[str], Type] = compact
) -> None:
    """Write one file with the names of converted drafters.

    Args:
        kind: neutral name of a matrix -> its tensor type.
    """
    pool, config = cpu.ThreadPool(cores().threads), assistant.config
    text = config.get_text_config()
    writer = gguf.GGUFWriter(path, _ARCHITECTURE)
    _write_metadata(writer, config, text)
    for name, values in assistant.state_dict().items():
        neutral = neutral_name(name)
        if neutral is None or neutral == "lm_head.weight":  # the head is the embedding
            continue
        to = gguf_name(neutral)
        if name.endswith("token_ordering"):
            writer.add_tensor(to, values.numpy().astype(np.int32))
            continue
        array = values.float().numpy()
        if array.ndim == 1:
            writer.add_tensor(to, array)
        else:
            writer.add_tensor(to, _quantized(array, kind(neutral), pool), raw_dtype=kind(neutral))
    writer.add_tensor(ROPE_FREQS, _rope_divisors(text))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _quantized(array: Floats, kind: Type, pool: cpu.ThreadPool) -> Bytes:
    """(rows, columns) weights as (rows, bytes) blocks."""
    if kind not in (Type.Q4_0, Type.Q8_0):
        return gguf.quants.quantize(array, kind)
    rows, columns = array.shape
    data = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    blocks, _, _ = cpu.quantize(kind.name, "F32", rows, columns, data, pool)
    return np.asarray(blocks).reshape(rows, -1)


def _rope_divisors(text: Any) -> Floats:
    """(pairs,) divisors of the full layers' rotary frequencies: 1, or 1e30 for a pair that is not rotated."""
    pairs = text.per_layer_config[FULL].head_dim // 2
    rotated = int(text.rope_parameters[FULL].get("partial_rotary_factor", 1.0) * pairs)
    return np.array([1.0] * rotated + [1e30] * (pairs - rotated), np.float32)


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
