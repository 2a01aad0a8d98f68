"""From a checkpoint's block formats to the layouts of the kernels."""

from outrider.quant.packing import WeightStore

__all__ = ["WeightStore"]
