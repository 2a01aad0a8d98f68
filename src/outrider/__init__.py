"""outrider: speculative decoding for Gemma on CPUs. The same tokens in fewer passes."""

import importlib
from typing import TYPE_CHECKING, Any

from outrider.errors import OutriderError

if TYPE_CHECKING:
    from outrider.engine.outputs import RequestOutput
    from outrider.llm import LLM
    from outrider.sampling.grammar import Grammar
    from outrider.sampling.params import SamplingParams

__all__ = ["LLM", "Grammar", "OutriderError", "RequestOutput", "SamplingParams"]
__version__ = "0.1.0"

_HOMES = {
    "LLM": "outrider.llm",
    "Grammar": "outrider.sampling.grammar",
    "RequestOutput": "outrider.engine.outputs",
    "SamplingParams": "outrider.sampling.params",
}


def __getattr__(name: str) -> Any:
    """Loads a public name when it is first used, so that `outrider --help` need not load the engine."""
    if name not in _HOMES:
        raise AttributeError(f"module 'outrider' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*__all__, *(name for name in globals() if name.startswith("__"))])
