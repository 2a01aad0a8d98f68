"""Hugging Face's "fp8": E4M3 matrices with a float scale for each block.

A matrix X is stored as X.weight (rows, columns) and X.weight_scale_inv, which despite its name is what to multiply
with: one value for each `weight_block_size` rows and columns, or one for the matrix if that is null. A stack of experts
has the dimension of experts in front of both. Activations are quantized as the model runs: that is left out, they are
computed as floating point. Source: transformers, integrations/finegrained_fp8.py.
"""

from __future__ import annotations

from outrider.checkpoints.hf.quantized.floats import Float8
from outrider.checkpoints.hf.quantized.modules import transformers_modules
from outrider.checkpoints.hf.quantized.parts import INSTEAD, Module, Parts
from outrider.checkpoints.hf.quantized.scheme import Matrix, Reader, Scheme
from outrider.checkpoints.settings import Settings

_DESCRIPTIVE = ("quant_method", "activation_scheme", "dequantize", "fmt")


def fp8(config: Settings) -> Scheme:
    """The scheme of a config of transformers' FineGrainedFP8Config.

    Raises:
        CheckpointError: it has weights or scales of another kind.
    """
    for key, only in (("scale_fmt", "float"), ("expert_dtype", "fp8"), ("fmt", "e4m3")):
        if (found := config.text(key, only)) != only:
            raise config.fault(f"has {key} {found!r}, which is not supported", INSTEAD)
    if config.raw("modules_to_convert"):
        raise config.fault("has modules_to_convert, which is not supported", INSTEAD)
    block = config.sizes("weight_block_size", 2) if config.has("weight_block_size") else None
    skipped = [config.texts(key) for key in ("modules_to_not_convert", "ignored_layers") if config.has(key)]
    config.skip("weight_block_size", "modules_to_not_convert", "ignored_layers")
    left_out = transformers_modules([name for names in skipped for name in names], config)
    config.refuse_unread(_DESCRIPTIVE)

    def read(parts: Parts) -> Matrix:
        weight = parts.of("weight", "F8_E4M3")
        if not 2 <= len(weight.shape) <= 3:
            raise parts.misfit("weight", weight.shape, "(rows, columns)")
        scales = parts.of("weight_scale_inv", "F32", "BF16", "F16")
        parts.finish()
        return Float8(parts, weight, scales, (block[0], block[1]) if block else weight.shape[-2:])  # type: ignore[arg-type]

    def reader(module: Module) -> Reader | None:
        return None if module.kind == "Embedding" or module in left_out else read

    return Scheme(reader, complete=True)
