"""Blocks of every quantized GGUF format, and a tiny checkpoint in each: one whose rows are whole blocks of 256."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import tiny_checkpoints
import transformers
from gguf import GGMLQuantizationType as Type
from tiny_checkpoints import VARIANTS, gguf_tensors, gguf_writer, randomized

from outrider.checkpoints.checkpoint import BLOCKS, FLOAT_FORMATS, SCALED_FORMATS, WEIGHT_FORMATS, Format

FORMATS = tuple(name for name in WEIGHT_FORMATS if name not in FLOAT_FORMATS + SCALED_FORMATS)
"""The quantized formats of GGUF."""
NEW = FORMATS[FORMATS.index("IQ4_NL") :]
"""Those that the gguf package does not quantize to, or that need rows of 256."""

_HALVES: dict[str, tuple[int, ...]] = {"Q2_K": (80, 82), "Q3_K": (108,), "TQ2_0": (64,), "MXFP4": (), "NVFP4": ()}
"""Where the float16 scales of a block are, if not at its start."""
_WIDE = {"hidden_size": 256, "intermediate_size": 256, "head_dim": 64, "num_hidden_layers": 5}


def wide_model(variant: str) -> transformers.PreTrainedModel:
    """A random Gemma 4 of a variant whose matrices have multiples of 256 columns."""
    arguments: dict[str, Any] = {**VARIANTS[variant], **_WIDE}
    for name in ("hidden_size_per_layer_input", "moe_intermediate_size"):
        if arguments.get(name):
            arguments[name] = 256
    if "layer_types" in arguments:
        arguments |= {"layer_types": arguments["layer_types"][:5], "num_kv_shared_layers": 0}
    return randomized(transformers.Gemma4ForCausalLM(transformers.Gemma4TextConfig(**arguments)))


def save_blocks(
    model: transformers.PreTrainedModel,
    path: Path,
    kind: Format,
    *,
    factors: bool = False,
    edit: Callable[[gguf.GGUFWriter], None] = lambda _: None,
) -> Path:
    """A GGUF file of `model`'s shapes whose matrices are random blocks of the magnitude of its weights. `factors`: each
    that may have one is stored with a `.scale` and an `.input_scale`."""
    rng = np.random.default_rng(5)
    writer = gguf_writer(model.config, path)
    for name, values in gguf_tensors(model):
        if values.ndim == 1:
            writer.add_tensor(name, values)
            continue
        scaled = factors and "token_embd" not in name and "ffn_gate_inp" not in name and "ffn_down_exps" not in name
        count = values.shape[0] if values.ndim == 3 else 1
        factor = rng.uniform(0.5, 2.0, count).astype(np.float32)
        rms = float(np.sqrt(np.mean(values**2))) / (float(factor.mean()) if scaled else 1.0)
        blocks = random_blocks(kind, values.size // values.shape[-1], values.shape[-1], rng, rms)
        writer.add_tensor(name, blocks.reshape(*values.shape[:-1], -1), raw_dtype=Type[kind])
        if scaled:
            writer.add_tensor(name.replace(".weight", ".scale"), factor)
            writer.add_tensor(name.replace(".weight", ".input_scale"), factor)
    edit(writer)
    tiny_checkpoints.finish(writer)
    return path


def random_blocks(
    kind: Format, rows: int, columns: int, rng: np.random.Generator, rms: float
) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """(rows, bytes of a row) uint8: random codes, and scales that give the weights this root mean square."""
    weights, size = BLOCKS[kind]
    blocks = rng.integers(0, 256, (rows * columns // weights, size), np.uint8)
    halves = _HALVES.get(kind, (0,))

    def scale_by(factor: float) -> None:
        for at in halves:
            blocks[:, at : at + 2] = (scales * np.float32(factor)).astype(np.float16).view(np.uint8).reshape(-1, 2)
        exponent = round(np.log2(factor))
        if kind == "MXFP4":
            blocks[:, 0] = spread + np.uint8(128 + exponent)
        if kind == "NVFP4":
            blocks[:, :4] = (spread + np.uint8(8 * (7 + exponent))).reshape(-1, 1)

    scales = rng.uniform(0.5, 1.0, len(blocks)).astype(np.float32)
    spread = rng.integers(0, 4, len(blocks), np.uint8)
    scale_by(1.0)
    scale_by(rms / float(np.sqrt(np.mean(gguf.quants.dequantize(blocks, Type[kind]) ** 2))))
    return blocks.reshape(rows, -1)
