"""Quantized matrices in folders of safetensors, as the tools of many makers store them: a file for each method."""
