"""A LoRA adapter in a GGUF file, as llama.cpp's `convert_lora_to_gguf.py` writes it.

The matrices are `<tensor of the base>.lora_a`, (r, columns), and `.lora_b`, (rows, r); the scale is alpha / r, or 1
where alpha is 0 (llama.cpp's `llama-adapter.h`).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from outrider.checkpoints.adapters.adapter import Adapter, assembled
from outrider.checkpoints.checkpoint import Tensor
from outrider.checkpoints.config import ModelConfig
from outrider.checkpoints.gguf.file import GGUFFile
from outrider.checkpoints.gguf.names import neutral_name
from outrider.checkpoints.settings import Settings


def open_gguf_adapter(path: Path, config: ModelConfig) -> Adapter:
    """The adapter in a GGUF file. Raises CheckpointError: see `open_adapter`."""
    file = GGUFFile(path)
    general, settings = Settings(file.values, path, "general."), Settings(file.values, path, "adapter.")
    if (kind := general.text("type", "model")) != "adapter":
        raise general.fault(f"is a {kind}, not an adapter", "Pass a model as MODEL, and its adapter by --lora")
    if (architecture := general.text("architecture")) != config.architecture:
        problem = f"adapts a model of architecture {architecture!r}, and this one is {config.architecture!r}"
        raise general.fault(problem, "Use an adapter that was trained on this model")
    if (method := settings.text("type")) != "lora":
        raise settings.fault(f"is an adapter of type {method!r}, which is not supported", "Use a LoRA adapter")
    if settings.has("alora.invocation_tokens"):
        raise settings.fault("is an activated LoRA (aLoRA), which is not supported", "Use a plain LoRA adapter")
    alpha = settings.number("lora.alpha")
    settings.refuse_unread(("lora.task_name", "lora.prompt_prefix"))
    halves, left_out = dict[str, dict[str, Tensor]](), 0
    for tensor in file.table.values():
        of, _, half = tensor.name.rpartition(".lora_")
        if half not in ("a", "b"):
            problem = f"holds the whole tensor {tensor.name}, which is not supported"
            raise file.fault(problem, "Use an adapter of LoRA matrices alone, or merge it into the checkpoint")
        if (name := neutral_name(of)) is not None:
            halves.setdefault(name, {})[half] = replace(tensor, name=name)
        left_out += name is None and half == "a"
    return assembled(path, (path,), config, halves, lambda _, rank: alpha / rank if alpha else 1.0, left_out)
