"""Random LoRA adapters for the tiny checkpoints, as PEFT saves them and as GGUF, and merged."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import peft
import torch
import transformers
from tiny_checkpoints import gguf_name

PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
PER_LAYER = ["per_layer_input_gate", "per_layer_projection", "per_layer_model_projection"]
ROUTER = ["proj"]


def adapted(
    model: transformers.PreTrainedModel, *, seed: int = 0, dtype: torch.dtype = torch.float32, **config: Any
) -> peft.PeftModel:
    """`model` with a random adapter of everything linear in it, experts aside; `config` goes to LoraConfig."""
    names = {name.rpartition(".")[2] for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    given = {"r": 4, "lora_alpha": 6, "target_modules": sorted(names & {*PROJECTIONS, *PER_LAYER, *ROUTER}), **config}
    made = peft.get_peft_model(deepcopy(model), peft.LoraConfig(**given))
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for name, values in sorted(made.named_parameters()):
            if ".lora_" in name:
                drawn = rng.normal(size=tuple(values.shape)) / np.sqrt(values.shape[-1])
                values.copy_(torch.from_numpy(drawn).to(dtype))
    return made.eval()


def save_adapter(made: peft.PeftModel, folder: Path) -> Path:
    """An adapter as PEFT saves it."""
    made.save_pretrained(folder)
    return folder


def merged(made: peft.PeftModel) -> transformers.PreTrainedModel:
    """The model with the adapter merged into its weights."""
    return deepcopy(made).merge_and_unload().eval()


def save_gguf_adapter(made: peft.PeftModel, path: Path, *, alpha: float | None = None) -> Path:
    """An adapter as llama.cpp's converter writes it; `alpha` overrides the config's."""
    (config,) = made.peft_config.values()
    architecture = "gemma3" if made.config.get_text_config().model_type == "gemma3_text" else "gemma4"
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", float(config.lora_alpha if alpha is None else alpha))
    for name, values in peft.get_peft_model_state_dict(made).items():
        module, _, half = name.removeprefix("base_model.model.model.").removesuffix(".weight").rpartition(".lora_")
        writer.add_tensor(f"{gguf_name(f'{module}.weight')}.lora_{half.lower()}", values.float().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
