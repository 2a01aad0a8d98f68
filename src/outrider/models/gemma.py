"""Gemma 3 and Gemma 4 text models: the architecture, and nothing else.

Recorded as data (`program`), which an executor runs. Reference: `transformers` models/gemma3 and models/gemma4.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Container
from dataclasses import dataclass, field

from outrider.checkpoints.config import ModelConfig, own_kv_layers
from outrider.checkpoints.tensors import EMBEDDING, head_of
from outrider.executor import Executor
from outrider.models.layer import Stack, decoder_layer, rope_tables, static_scales
from outrider.program import Add, Copy, Gather, Head, HeadNorm, KvLayer, Linear, Program, Recorder, RmsNorm, Scale

HIDDEN = "hidden"
"""The buffer (outputs, hidden_size) of final hidden states, after the last norm."""


@dataclass(frozen=True)
class Forward:
    """A target that an executor runs. `hidden` and `taps` (by layer) name buffers."""

    config: ModelConfig
    program: Executor
    taps: dict[int, str] = field(default_factory=dict)
    hidden: str = HIDDEN


def kv_layers(config: ModelConfig) -> tuple[KvLayer, ...]:
    """The cache layers of a model, in the order of the layers that make keys and values."""
    layers = [config.layers[i] for i in own_kv_layers(config)]
    return tuple(KvLayer(layer.kv_heads, layer.head_dim, layer.window or 0) for layer in layers)


def kv_numbers(config: ModelConfig) -> dict[int, int]:
    """Layer that makes keys and values -> its layer in the cache."""
    return {layer: number for number, layer in enumerate(own_kv_layers(config))}


def tap(layer: int) -> str:
    """The buffer (rows, hidden_size) of the residual stream after a layer that is tapped."""
    return f"tap {layer}"


def record_gemma(config: ModelConfig, names: Container[str], *, taps: Collection[int] = ()) -> Program:
    """The forward pass of a target.

    Args:
        names: of the checkpoint's tensors.
        taps: layers after which the hidden state of every row is kept, in the buffers `tap(layer)`.

    Raises:
        ValueError: a tap names a layer that the model does not have.
    """
    if unknown := [layer for layer in taps if not 0 <= layer < len(config.layers)]:
        raise ValueError(f"layer {unknown[0]} cannot be tapped: the model has layers 0 to {len(config.layers) - 1}")
    record, numbers = Recorder(names, kv_layers(config)), kv_numbers(config)
    x = record.buffer("x", config.hidden_size)
    record(Gather(EMBEDDING, math.sqrt(config.hidden_size), x, embeddings=True))
    ple = _per_layer_inputs(record, config, x) if config.ple_width else None
    reads = tuple(numbers[layer.kv_source] for layer in config.layers)
    stack = Stack(record, config, x, rope_tables(record, config), reads, ple)
    for index in range(len(config.layers)):
        decoder_layer(stack, index)
        if index in taps:
            record(Copy(x, record.buffer(tap(index), config.hidden_size)))
    hidden = record.buffer(HIDDEN, config.hidden_size)
    record(RmsNorm(x, "norm.weight", config.rms_norm_eps, hidden))
    record(Head(hidden, head_of(record.names), config.logit_softcap or 0.0, *static_scales(record.names, "lm_head")))
    return record.program(every_row=[tap(layer) for layer in taps])


def _per_layer_inputs(record: Recorder, c: ModelConfig, x: str) -> str:
    """(rows, layers * ple_width): per-layer embeddings, from the token itself and from its embedding."""
    width = len(c.layers) * c.ple_width
    ple, identity = record.buffer("ple", width), record.buffer("ple identity", width)
    record(Gather("embed_tokens_per_layer.weight", math.sqrt(c.ple_width), identity))
    record(Linear(x, "per_layer_model_projection.weight", ple), Scale(ple, 1 / math.sqrt(c.hidden_size)))
    norm = "per_layer_projection_norm.weight"
    record(HeadNorm(ple, norm, c.rms_norm_eps, len(c.layers), c.ple_width, ple))
    record(Add(identity, ple), Scale(ple, math.sqrt(0.5)))
    return ple
