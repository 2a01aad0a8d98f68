"""Whole folders whose linear layers are stored in one of the schemes of `quantizers`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import transformers
from quantizers import Case
from safetensors.torch import load_file, save_file

LINEAR = (
    "_proj.weight",
    "per_layer_input_gate.weight",
    "per_layer_projection.weight",
    "per_layer_model_projection.weight",
    "router.proj.weight",
)
Values = dict[str, torch.Tensor]


def quantize_folder(folder: Path, case: Case, *, seed: int = 0) -> Values:
    """Stores every linear layer of a folder anew, in random codes; returns all weights as they then are, by name.

    Stacks of experts become linear layers, as the tools make them.
    """
    rng = torch.Generator().manual_seed(seed)
    stored = load_file(folder / "model.safetensors")
    values = dict(stored)
    for name, weight in list(stored.items()):
        for matrix, rows in _matrices(name, weight):
            parts, value = case.draw(rows, weight.shape[-1], rng)
            stored |= {f"{matrix}.{part}": tensor for part, tensor in parts.items()}
            stored.pop(name, None) if f"{matrix}.weight" != name or "weight" not in parts else None
            values[f"{matrix}.weight"] = value
        if "experts." in name:
            values[name] = _stack(name, values)
    save_file(stored, folder / "model.safetensors")
    change_config(folder, case.config)
    return {name: value for name, value in values.items() if ".experts." not in name or "proj.weight" not in name}


def change_config(folder: Path, quantization: dict[str, Any] | None) -> None:
    """Sets or removes the quantization_config."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config.pop("quantization_config", None)
    path.write_text(json.dumps(config | ({"quantization_config": quantization} if quantization else {})))


def reference_logits(folder: Path, values: Values, prompt: list[int]) -> Any:
    """The logits of transformers' model with these weights."""
    config = transformers.AutoConfig.from_pretrained(folder)
    del config.quantization_config
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    left = model.load_state_dict(values, strict=False)
    assert left.missing_keys == ["lm_head.weight"]
    assert not left.unexpected_keys
    model.tie_weights()
    with torch.no_grad():
        return model(torch.tensor([prompt])).logits[0].numpy()


def _matrices(name: str, weight: torch.Tensor) -> Iterator[tuple[str, int]]:
    """The modules that a tensor is stored as, and their rows."""
    if name.endswith(LINEAR):
        yield name.removesuffix(".weight"), weight.shape[0]
    elif "experts." in name:
        stem, _, stack = name.rpartition(".")
        kinds = ("gate_proj", "up_proj") if stack == "gate_up_proj" else (stack,)
        for expert in range(weight.shape[0]):
            for kind in kinds:
                yield f"{stem}.{expert}.{kind}", weight.shape[1] // len(kinds)


def _stack(name: str, values: Values) -> torch.Tensor:
    stem, _, stack = name.rpartition(".")
    kinds = ("gate_proj", "up_proj") if stack == "gate_up_proj" else (stack,)
    count = len(values[name])
    return torch.stack([torch.cat([values[f"{stem}.{i}.{kind}.weight"] for kind in kinds]) for i in range(count)])
