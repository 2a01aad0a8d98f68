"""Reads GGUF files, folders of safetensors, hub ids, Ollama's models and the demo into configs and named tensors."""

from outrider.checkpoints.checkpoint import Checkpoint, Format, Tensor
from outrider.checkpoints.config import AssistantConfig, Layer, ModelConfig
from outrider.checkpoints.resolve import open_checkpoint
from outrider.checkpoints.tokenizer_tables import TokenizerTables

__all__ = [
    "AssistantConfig",
    "Checkpoint",
    "Format",
    "Layer",
    "ModelConfig",
    "Tensor",
    "TokenizerTables",
    "open_checkpoint",
]
