"""outrider: Gemma 4 with MTP drafters. The same answer, two to three times sooner."""

from outrider.engine.outputs import RequestOutput
from outrider.errors import OutriderError
from outrider.llm import LLM
from outrider.sampling.params import SamplingParams

__all__ = ["LLM", "OutriderError", "RequestOutput", "SamplingParams"]
__version__ = "0.1.0"
