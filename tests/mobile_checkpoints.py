"""Small random checkpoints in the two formats of Google's QAT mobile releases."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from safetensors.torch import load_file, save_file
from tiny_checkpoints import make_model

PATTERNS = {
    r"model\.embed_tokens$": {"num_bits": 2},
    r"^lm_head$": {"num_bits": 2},
    r"model\.embed_tokens_per_layer$": {"num_bits": 4},
    r"model\.layers\.\d+\.per_layer_input_gate$": {"num_bits": 8},
    r"model\.layers\.\d+\.per_layer_projection$": {"num_bits": 8},
    r"model\.layers\.\d+\.self_attn\.": {"num_bits": 4},
    r"model\.layers\.[0-5]\.mlp\.": {"num_bits": 4},
    r"model\.layers\.\d+\.mlp\.": {"num_bits": 2},
}
"""As in E2B's release, for the tiny variant of it, whose last four layers share keys and values."""
NOT_CONVERTED = ["per_layer_model_projection"]
_SHARED_INPUT = {"k_proj": "q_proj", "v_proj": "q_proj", "up_proj": "gate_proj"}


def bits_of(name: str) -> int:
    """The bits of a module."""
    return next(options["num_bits"] for pattern, options in PATTERNS.items() if re.search(pattern, name))


def save_mobile(folder: Path, *, packed: bool = False, uncalibrated: str = "layers.2.", seed: int = 0) -> Path:
    """A random checkpoint of the tiny E2B: in the format of transformers, or `packed`, in that of vLLM.

    Modules with `uncalibrated` in their names have activation scales of 0.
    """
    model, rng = make_model("gemma4-e2b", seed=seed), np.random.default_rng(seed)
    tensors: dict[str, torch.Tensor] = {}
    modules = dict(model.named_modules())
    for name, values in model.state_dict().items():
        module, _, part = name.rpartition(".")
        kind = modules[module] if part == "weight" else None
        if isinstance(kind, torch.nn.Linear | torch.nn.Embedding) and not module.endswith(tuple(NOT_CONVERTED)):
            groups = 10 if module.endswith("embed_tokens_per_layer") else 1
            rounded = uncalibrated not in module
            tensors |= _module(module, tuple(values.shape), groups, rng, packed=packed, rounded=rounded)
        else:
            tensors[name] = values.clone()
    for name in list(tensors):
        if name.endswith("k_proj.weight_scale"):
            for cache in ("k_cache_scale", "v_cache_scale"):
                tensors[name.replace("k_proj.weight_scale", cache)] = torch.tensor(0.1)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    config = {**model.config.to_dict(), "architectures": ["Gemma4ForCausalLM"], "tie_word_embeddings": False}
    config["quantization_config"] = _ct_config() if packed else _gemma_config()
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def _module(
    module: str, shape: tuple[int, int], groups: int, rng: np.random.Generator, *, packed: bool, rounded: bool
) -> dict[str, torch.Tensor]:
    (rows, columns), bits = shape, bits_of(module)
    spread = {2: 0.8, 4: 3.0, 8: 40.0}[bits]
    middle = 1 << (bits - 1)
    codes = np.clip(np.round(rng.normal(size=shape) * spread) + middle, 0, 2 * middle - 1).astype(np.uint8)
    scale = (rng.uniform(0.8, 1.2, (rows, groups)) / (spread * np.sqrt(columns))).astype(np.float32)
    embedding = module.split(".")[-1].startswith("embed_tokens")
    per_byte = 8 // bits
    stored = sum(codes[:, place::per_byte].astype(np.uint32) << (bits * place) for place in range(per_byte))
    stored = np.ascontiguousarray(stored.astype(np.uint8))
    if bits == 8:
        stored = (codes ^ 0x80).view(np.int8)
    names = ("embedding_quantized", "embedding_scale") if embedding else ("weight", "weight_scale")
    found = {}
    if packed:
        names = ("weight" if bits == 8 else "weight_packed", "weight_scale")
        if bits != 8:
            stored = stored.view(np.int32)
            found[f"{module}.weight_shape"] = torch.tensor(shape)
    found |= {f"{module}.{names[0]}": torch.from_numpy(stored), f"{module}.{names[1]}": torch.from_numpy(scale)}
    if not embedding:
        for part, value in (("input", _input_scale(module)), ("output", rng.uniform(3, 5) / 127)):
            number = torch.tensor(value if rounded else 0.0, dtype=torch.float32)
            found[f"{module}.{part}{'' if packed else '_activation'}_scale"] = number.reshape(1) if packed else number
    return found


def _input_scale(module: str) -> float:
    """Some number that modules of the same input share."""
    *path, last = module.split(".")
    name = ".".join([*path, _SHARED_INPUT.get(last, last)])
    return (3 + sum(name.encode()) % 16 / 8) / 127


def _gemma_config() -> dict[str, Any]:
    return {
        "quant_method": "gemma",
        "num_bits": 4,
        "quantize_embeddings": True,
        "module_quant_configs": PATTERNS,
        "modules_to_not_convert": NOT_CONVERTED,
    }


def _ct_config() -> dict[str, Any]:
    activations = {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "tensor", "dynamic": False}
    groups = {}
    for number, (pattern, options) in enumerate(PATTERNS.items()):
        weights = {"num_bits": options["num_bits"], "type": "int", "symmetric": True, "strategy": "channel"}
        group: dict[str, Any] = {
            "targets": [f"re:.*{pattern}" if not pattern.startswith("^") else f"re:{pattern}"],
            "weights": weights,
            "format": "int-quantized" if options["num_bits"] == 8 else "pack-quantized",
        }
        if "embed" not in pattern:
            group |= {"input_activations": activations, "output_activations": activations}
        groups[f"group_{number}"] = group
    ignore = ["re:.*per_layer_model_projection"]
    return {
        "quant_method": "compressed-tensors",
        "format": "mixed-precision",
        "config_groups": groups,
        "ignore": ignore,
    }


def reference_of(folder: Path) -> transformers.PreTrainedModel:
    """The checkpoint of transformers' format as transformers computes it, in float32.

    It declares one scale a row for the per-layer embedding; those of the file are put in afterwards.
    """
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, ignore_mismatched_sizes=True)
    scales = load_file(folder / "model.safetensors")["model.embed_tokens_per_layer.embedding_scale"]
    model.model.embed_tokens_per_layer.embedding_scale = torch.nn.Parameter(scales, requires_grad=False)
    return model.eval()
