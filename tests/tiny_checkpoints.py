"""Small random Gemma checkpoints of every variant, as transformers saves them and as GGUF.

Every weight that a fresh model leaves at a constant (norms, layer scalars, router scales) is made random, since a
constant hides a factor that is dropped or applied twice. All dimensions are multiples of 32, so that every linear
weight can be quantized to 32-weight blocks.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
import transformers
from gguf import GGMLQuantizationType as Type

VOCAB = 512
HIDDEN = 64
WINDOW = 16
BOS, EOS = 2, 1

_SHARED: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": HIDDEN,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "sliding_window": WINDOW,
    "max_position_embeddings": 4096,
}
_GEMMA4: dict[str, Any] = {
    **_SHARED,
    "global_head_dim": 64,
    "hidden_size_per_layer_input": 0,
    "vocab_size_per_layer_input": VOCAB,
    "num_hidden_layers": 6,
}

SLIDING, FULL = "sliding_attention", "full_attention"

VARIANTS: dict[str, dict[str, Any]] = {
    "gemma3": {**_SHARED, "num_hidden_layers": 7, "query_pre_attn_scalar": 32},
    "gemma3-scaled": {
        **_SHARED,
        "num_hidden_layers": 6,
        "query_pre_attn_scalar": 32,
        "final_logit_softcapping": 20.0,
        "rope_parameters": {
            FULL: {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
            SLIDING: {"rope_type": "default", "rope_theta": 1e4},
        },
    },
    "gemma4-dense": {**_GEMMA4},
    "gemma4-softcap": {**_GEMMA4, "final_logit_softcapping": 5.0},
    "gemma4-e2b": {
        **_GEMMA4,
        "num_hidden_layers": 10,
        "layer_types": [SLIDING, SLIDING, SLIDING, SLIDING, FULL] * 2,
        "num_key_value_heads": 1,
        "hidden_size_per_layer_input": 32,
        "num_kv_shared_layers": 4,
        "use_double_wide_mlp": True,
        "final_logit_softcapping": 30.0,
    },
    "gemma4-k-eq-v": {
        **_GEMMA4,
        "attention_k_eq_v": True,
        "num_global_key_value_heads": 1,
        "num_key_value_heads": 4,
    },
    "gemma4-moe": {
        **_GEMMA4,
        "enable_moe_block": True,
        "num_experts": 8,
        "top_k_experts": 2,
        "moe_intermediate_size": 32,
        "attention_k_eq_v": True,
        "num_global_key_value_heads": 1,
    },
}
"""Name -> arguments of the text config; a name that begins with "gemma3" is Gemma 3, the rest Gemma 4."""

ASSISTANTS: dict[str, dict[str, Any]] = {
    "assistant-dense": {"use_ordered_embeddings": False},
    "assistant-centroids": {
        "use_ordered_embeddings": True,
        "num_centroids": 16,
        "centroid_intermediate_top_k": 4,
    },
}
"""Name -> arguments of the assistant config, for a target of HIDDEN dims (any Gemma 4 variant above)."""


@dataclass(frozen=True)
class Tiny:
    """One variant three ways: the float32 model, its folder, its GGUF file (F32)."""

    model: transformers.PreTrainedModel
    folder: Path
    gguf: Path


def is_gemma3(variant: str) -> bool:
    """True for the Gemma 3 variants."""
    return variant.startswith("gemma3")


def make_model(variant: str, *, seed: int = 0) -> transformers.PreTrainedModel:
    """A random float32 model of one of VARIANTS or ASSISTANTS, in eval mode."""
    if variant in ASSISTANTS:
        return randomized(assistant_of(variant), seed)
    if is_gemma3(variant):
        return randomized(transformers.Gemma3ForCausalLM(transformers.Gemma3TextConfig(**VARIANTS[variant])), seed)
    return randomized(transformers.Gemma4ForCausalLM(transformers.Gemma4TextConfig(**VARIANTS[variant])), seed)


def make_assistant(
    target: transformers.PretrainedConfig, *, ordered: bool, seed: int = 0
) -> transformers.PreTrainedModel:
    """A random drafter whose layers fit the keys and values of `target` (a Gemma 4 text config)."""
    name = "assistant-centroids" if ordered else "assistant-dense"
    return randomized(assistant_of(name, **_kv_shape(target), backbone_hidden_size=target.hidden_size), seed)


def save_folder(
    model: transformers.PreTrainedModel, folder: Path, *, dtype: torch.dtype = torch.float32, **kwargs: Any
) -> Path:
    """`model` as a folder with config.json and *.safetensors; `kwargs` go to save_pretrained (max_shard_size)."""
    deepcopy(model).to(dtype).save_pretrained(folder, **kwargs)  # a cast in place would round the model itself
    return folder


def save_gguf(
    model: transformers.PreTrainedModel,
    path: Path,
    kind: Type | Callable[[str], Type] = Type.F32,
    *,
    edit: Callable[[gguf.GGUFWriter], None] | None = None,
    split: int = 0,
) -> Path:
    """`model` as a GGUF file with Gemma 3's or 4's naming.

    Matrices are stored as `kind` (a type, or a function of the neutral name to one: F32, F16, BF16, Q8_0, Q4_0, Q4_1,
    Q5_0 or Q5_1); vectors always as F32. `edit` may add to the writer before it writes. With `split`, the file comes in
    parts of so many tensors, beside `path`.
    """
    writer = gguf_writer(model.config, path, split=split)
    for name, values in gguf_tensors(model):
        kind_of = kind if isinstance(kind, Type) else kind(name)
        if values.dtype == np.int32 or values.ndim == 1:
            writer.add_tensor(name, values)
        else:
            packed = gguf.quants.quantize(values, kind_of)
            writer.add_tensor(name, packed, raw_dtype=kind_of)
    if edit:
        edit(writer)
    finish(writer)
    return path


def finish(writer: gguf.GGUFWriter) -> None:
    """Writes a GGUF file to the disk."""
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def gguf_writer(config: Any, path: Path, *, split: int = 0) -> gguf.GGUFWriter:
    """A writer with the metadata of a model of this (transformers) config."""
    text = config.get_text_config()
    assistant = hasattr(config, "backbone_hidden_size")
    architecture = "gemma3" if text.model_type == "gemma3_text" else "gemma4-assistant" if assistant else "gemma4"
    writer = gguf.GGUFWriter(path, architecture, split_max_tensors=split)
    _write_metadata(writer, architecture, config, text)
    return writer


def neutral_tensors(model: transformers.PreTrainedModel) -> dict[str, np.ndarray[Any, Any]]:
    """Neutral name -> values (float32 or int32) as the arithmetic takes them: norms are the multiplier itself."""
    gemma3 = model.config.get_text_config().model_type == "gemma3_text"
    tensors: dict[str, np.ndarray[Any, Any]] = {}
    for name, values in model.state_dict().items():
        if name == "lm_head.weight":
            continue
        name = name.removeprefix("model.")
        if name.endswith("token_ordering"):
            tensors[name] = values.numpy().astype(np.int32)
        else:
            array = values.float().numpy()
            tensors[name] = np.float32(1) + array if gemma3 and name.endswith("norm.weight") else array.copy()
    return tensors


def gguf_tensors(model: transformers.PreTrainedModel) -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
    """GGUF name and values of every tensor, `rope_freqs` included."""
    text = model.config.get_text_config()
    for name, values in neutral_tensors(model).items():
        yield gguf_name(name), values
    if text.model_type != "gemma3_text":
        yield "rope_freqs.weight", rope_freqs(text)


def rope_freqs(text: Any) -> np.ndarray[Any, Any]:
    """What says which pairs of a full layer's dims turn."""
    rope = text.rope_parameters["full_attention"]
    pairs = full_head_dim(text) // 2
    turned = int(rope["partial_rotary_factor"] * pairs)
    return np.array([1.0] * turned + [1e30] * (pairs - turned), np.float32)


def full_head_dim(text: Any) -> int:
    """The head size of the full layers."""
    return text.per_layer_config[FULL].head_dim


def assistant_of(name: str, **overrides: Any) -> transformers.PreTrainedModel:
    arguments = {**ASSISTANTS[name], "backbone_hidden_size": HIDDEN}
    text = {**_GEMMA4, "hidden_size": 32, "num_hidden_layers": 4, "vocab_size_per_layer_input": 0}
    text["layer_types"] = [SLIDING, SLIDING, SLIDING, FULL]
    for key, value in overrides.items():
        (arguments if key in arguments else text)[key] = value
    text["num_kv_shared_layers"] = 4
    config = transformers.Gemma4AssistantConfig(text_config=transformers.Gemma4TextConfig(**text), **arguments)
    return transformers.Gemma4AssistantForCausalLM(config)


def _kv_shape(target: Any) -> dict[str, Any]:
    """What a drafter takes over from its target: heads, head sizes, window, vocabulary."""
    full, sliding = target.per_layer_config[FULL], target.per_layer_config[SLIDING]
    return {
        "vocab_size": target.vocab_size,
        "num_attention_heads": target.num_attention_heads,
        "num_key_value_heads": sliding.num_key_value_heads,
        "num_global_key_value_heads": full.num_key_value_heads,
        "attention_k_eq_v": target.attention_k_eq_v,
        "head_dim": sliding.head_dim,
        "global_head_dim": full.head_dim,
        "sliding_window": target.sliding_window,
        "max_position_embeddings": target.max_position_embeddings,
    }


@torch.no_grad()
def randomized(model: transformers.PreTrainedModel, seed: int = 0) -> transformers.PreTrainedModel:
    """Every parameter and buffer that matters drawn anew, in the order of its name.

    Matrices keep the variance of what they multiply (so that nothing saturates and every term counts), norms and
    scalars lie around their neutral value. The numbers are sums of integers and single float32 operations, so that they
    are the same on every machine, as those of torch's generators are not.
    """
    rng = np.random.default_rng(seed)
    gemma3 = model.config.get_text_config().model_type == "gemma3_text"

    def uniform(shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
        """In [-1, 1)."""
        return rng.integers(-(1 << 20), 1 << 20, shape).astype(np.float32) / np.float32(1 << 20)

    def bell(shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
        """Of variance 1."""
        return uniform(shape) + uniform(shape) + uniform(shape)

    for name, values in sorted(model.state_dict().items()):
        shape = tuple(values.shape)
        if name == "lm_head.weight":
            continue
        if name.endswith("token_ordering"):
            drawn = rng.permutation(len(values))
        elif name.endswith("norm.weight") or name.endswith("norm_1.weight") or name.endswith("norm_2.weight"):
            drawn = bell(shape) * np.float32(0.2) + np.float32(0.0 if gemma3 else 1.0)
        elif values.ndim == 1:
            drawn = uniform(shape) * np.float32(0.3) + np.float32(1.0)
        else:
            drawn = bell(shape) * np.float32(1 / math.sqrt(shape[-1]))
        values.copy_(torch.from_numpy(np.ascontiguousarray(drawn)))
    return model.eval()


def gguf_name(name: str) -> str:
    """The GGUF name of a neutral name."""
    if not name.startswith("layers."):
        return _GLOBAL_NAMES[name]
    _, index, inner = name.split(".", 2)
    return f"blk.{index}.{_LAYER_NAMES[inner]}"


# Written out here on purpose rather than inverted from the reader's own tables: the names are the files' convention,
# and a slip in the reader must not be mirrored by its test.
_GLOBAL_NAMES = {
    "embed_tokens.weight": "token_embd.weight",
    "norm.weight": "output_norm.weight",
    "embed_tokens_per_layer.weight": "per_layer_token_embd.weight",
    "per_layer_model_projection.weight": "per_layer_model_proj.weight",
    "per_layer_projection_norm.weight": "per_layer_proj_norm.weight",
    "pre_projection.weight": "nextn.pre_projection.weight",
    "post_projection.weight": "nextn.post_projection.weight",
    "masked_embedding.centroids.weight": "masked_embd_centroids.weight",
    "masked_embedding.token_ordering": "masked_embd_ordering",
}
_LAYER_NAMES = {
    "input_layernorm.weight": "attn_norm.weight",
    "self_attn.q_proj.weight": "attn_q.weight",
    "self_attn.k_proj.weight": "attn_k.weight",
    "self_attn.v_proj.weight": "attn_v.weight",
    "self_attn.o_proj.weight": "attn_output.weight",
    "self_attn.q_norm.weight": "attn_q_norm.weight",
    "self_attn.k_norm.weight": "attn_k_norm.weight",
    "post_attention_layernorm.weight": "post_attention_norm.weight",
    "pre_feedforward_layernorm.weight": "ffn_norm.weight",
    "mlp.gate_proj.weight": "ffn_gate.weight",
    "mlp.up_proj.weight": "ffn_up.weight",
    "mlp.down_proj.weight": "ffn_down.weight",
    "post_feedforward_layernorm.weight": "post_ffw_norm.weight",
    "layer_scalar": "layer_output_scale.weight",
    "per_layer_input_gate.weight": "inp_gate.weight",
    "per_layer_projection.weight": "proj.weight",
    "post_per_layer_input_norm.weight": "post_norm.weight",
    "router.proj.weight": "ffn_gate_inp.weight",
    "router.scale": "ffn_gate_inp.scale",
    "router.per_expert_scale": "ffn_down_exps.scale",
    "experts.gate_up_proj": "ffn_gate_up_exps.weight",
    "experts.down_proj": "ffn_down_exps.weight",
    "post_feedforward_layernorm_1.weight": "post_ffw_norm_1.weight",
    "post_feedforward_layernorm_2.weight": "post_ffw_norm_2.weight",
    "pre_feedforward_layernorm_2.weight": "pre_ffw_norm_2.weight",
}


def _write_metadata(writer: gguf.GGUFWriter, architecture: str, config: Any, text: Any) -> None:
    """The keys that llama.cpp's converter writes for this architecture."""
    layers = text.num_hidden_layers
    writer.add_name(f"tiny {architecture}")
    writer.add_context_length(text.max_position_embeddings)
    writer.add_embedding_length(text.hidden_size)
    writer.add_block_count(layers)
    writer.add_head_count(text.num_attention_heads)
    writer.add_layer_norm_rms_eps(text.rms_norm_eps)
    writer.add_sliding_window(text.sliding_window)
    if text.final_logit_softcapping:
        writer.add_final_logit_softcapping(text.final_logit_softcapping)
    full = text.rope_parameters["full_attention"]
    writer.add_rope_freq_base(full["rope_theta"])
    if architecture == "gemma3":
        writer.add_feed_forward_length(text.intermediate_size)
        writer.add_head_count_kv(text.num_key_value_heads)
        writer.add_key_length(text.head_dim)
        writer.add_value_length(text.head_dim)
        if full["rope_type"] == "linear":
            writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
            writer.add_rope_scaling_factor(full["factor"])
    else:
        _write_gemma4_metadata(writer, architecture, text, layers)
    if architecture == "gemma4-assistant":
        writer.add_uint32(f"{architecture}.embedding_length_out", config.backbone_hidden_size)
        writer.add_uint32(f"{architecture}.nextn_predict_layers", layers)
        if config.use_ordered_embeddings:
            writer.add_uint32(f"{architecture}.centroid_top_k", config.centroid_intermediate_top_k)
    write_tokenizer(writer, text.vocab_size)


def _write_gemma4_metadata(writer: gguf.GGUFWriter, architecture: str, text: Any, layers: int) -> None:
    sliding = [kind == SLIDING for kind in text.layer_types]
    full, local = text.per_layer_config[FULL], text.per_layer_config[SLIDING]
    shared = text.num_kv_shared_layers
    writer.add_key_length(full.head_dim)
    writer.add_value_length(full.head_dim)
    writer.add_rope_dimension_count(full.head_dim)
    for key in ("attention.key_length_swa", "attention.value_length_swa", "rope.dimension_count_swa"):
        writer.add_uint32(f"{architecture}.{key}", local.head_dim)
    writer.add_float32(f"{architecture}.rope.freq_base_swa", text.rope_parameters["sliding_attention"]["rope_theta"])
    writer.add_array(f"{architecture}.attention.sliding_window_pattern", sliding)
    writer.add_uint32(f"{architecture}.attention.shared_kv_layers", shared)
    writer.add_uint32(f"{architecture}.embedding_length_per_layer_input", text.hidden_size_per_layer_input)
    if text.use_double_wide_mlp:
        writer.add_feed_forward_length([text.intermediate_size * (1 + (i >= layers - shared)) for i in range(layers)])
    else:
        writer.add_feed_forward_length(text.intermediate_size)
    if full.num_key_value_heads != local.num_key_value_heads:
        writer.add_head_count_kv([(local if s else full).num_key_value_heads for s in sliding])
    else:
        writer.add_head_count_kv(local.num_key_value_heads)
    if text.enable_moe_block:
        writer.add_expert_count(text.num_experts)
        writer.add_expert_used_count(text.top_k_experts)
        writer.add_expert_feed_forward_length(text.moe_intermediate_size)


def write_tokenizer(writer: gguf.GGUFWriter, vocab_size: int) -> None:
    """A small vocabulary: four special tokens, 256 bytes, words."""
    tokens = ["<pad>", "<eos>", "<bos>", "<unk>"] + [f"<0x{byte:02X}>" for byte in range(256)]
    tokens += [f"\u2581w{index}" for index in range(vocab_size - len(tokens))]
    types = [3, 3, 3, 2] + [6] * 256 + [1] * (vocab_size - 260)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([float(-index) for index in range(vocab_size)])
    writer.add_token_types(types)
    writer.add_bos_token_id(BOS)
    writer.add_eos_token_id(EOS)
    writer.add_unk_token_id(3)
    writer.add_add_bos_token(True)
    writer.add_add_space_prefix(False)


def edit_config(folder: Path, changes: Mapping[str, Any]) -> None:
    """Set keys of a folder's config.json ("text_config.x" for a nested one); None removes a key."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    for dotted, value in changes.items():
        section = config
        *parents, key = dotted.split(".")
        for parent in parents:
            section = section[parent]
        if value is None:
            section.pop(key, None)
        else:
            section[key] = value
    path.write_text(json.dumps(config))
