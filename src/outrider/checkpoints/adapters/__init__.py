"""LoRA adapters as people have them: PEFT folders and GGUF files."""

from outrider.checkpoints.adapters.adapter import Adapter, LowRank
from outrider.checkpoints.adapters.merge import merged
from outrider.checkpoints.adapters.resolve import open_adapter

__all__ = ["Adapter", "LowRank", "merged", "open_adapter"]
