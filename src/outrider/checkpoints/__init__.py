"""Reads GGUF files, safetensors folders, hub ids and the built-in demo into configs and tensors of one naming."""

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
