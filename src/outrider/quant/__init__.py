"""From a checkpoint's block formats to the layouts of the kernels."""

from outrider.backends.cpu.weights import WeightStore
from outrider.quant.packs import QUANTIZATIONS, Packed, Quantization, quantized

__all__ = ["QUANTIZATIONS", "Packed", "Quantization", "WeightStore", "quantized"]
