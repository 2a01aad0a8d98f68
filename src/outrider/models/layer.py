"""One transformer layer of Gemma 3 or Gemma 4, of a target or a drafter.

Variants are data: what a layer has is read from its config and from which tensors the checkpoint holds. Reference:
`transformers` models/gemma3 and models/gemma4.
"""

from __future__ import annotations

import math
from collections.abc import Container, Mapping
from dataclasses import dataclass

from outrider.checkpoints.config import Layer, ModelConfig, Rope
from outrider.program import (
    Add,
    Attention,
    CombineExperts,
    ExpertGated,
    ExpertLinear,
    GeluGate,
    HeadNorm,
    Linear,
    Multiply,
    Recorder,
    RmsNorm,
    RopeTable,
    Route,
    Scale,
    StoreKv,
    Turn,
)


@dataclass(frozen=True)
class Stack:
    """What the layers of a model share.

    Args:
        record: takes the operations.
        x: the buffer of the residual stream.
        ropes: the buffer of each rope's table.
        reads: by layer, the cache layer whose keys and values it attends to.
        ple: the buffer of per-layer embeddings, if the model has them.
    """

    record: Recorder
    config: ModelConfig
    x: str
    ropes: Mapping[Rope, str]
    reads: tuple[int, ...]
    ple: str | None = None


def rope_tables(record: Recorder, config: ModelConfig) -> dict[Rope, str]:
    """Records the tables of all ropes of a model."""
    ropes = {}
    for number, rope in enumerate(dict.fromkeys(layer.rope for layer in config.layers)):
        ropes[rope] = record.buffer(f"rope {number}", rope.dims)
        record(RopeTable(rope, ropes[rope]))
    return ropes


def decoder_layer(stack: Stack, index: int) -> None:
    """Attention and MLP, each between norms and added to the residual stream; then what a variant adds."""
    record, c, x, name = stack.record, stack.config, stack.x, f"layers.{index}"
    layer, eps = c.layers[index], c.rms_norm_eps
    normed, y = record.buffer("normed", c.hidden_size), record.buffer("y", c.hidden_size)

    record(RmsNorm(x, f"{name}.input_layernorm.weight", eps, normed))
    attention(stack, index, layer, normed, y)
    record(RmsNorm(y, f"{name}.post_attention_layernorm.weight", eps, y), Add(y, x))

    record(RmsNorm(x, f"{name}.pre_feedforward_layernorm.weight", eps, normed))
    mlp(stack, name, layer, normed, y)
    if c.experts:
        mixture_of_experts(stack, name, y)
    record(RmsNorm(y, f"{name}.post_feedforward_layernorm.weight", eps, y), Add(y, x))

    if stack.ple is not None:
        per_layer_input(stack, index, y)
    if f"{name}.layer_scalar" in record.names:
        record(Scale(x, weight=f"{name}.layer_scalar"))


def projection(record: Recorder, src: str, matrix: str, dst: str) -> Linear:
    """dst = matrix src, with static scales of the activations where the checkpoint has them."""
    return Linear(src, f"{matrix}.weight", dst, *static_scales(record.names, matrix))


def static_scales(names: Container[str], matrix: str) -> tuple[str | None, str | None]:
    """The names of a matrix's static input and output scale, of those that the checkpoint has."""
    scales = f"{matrix}.input_scale", f"{matrix}.output_scale"
    return scales[0] if scales[0] in names else None, scales[1] if scales[1] in names else None


def attention(stack: Stack, index: int, layer: Layer, normed: str, y: str) -> None:
    """y = attention(normed); a layer that makes keys and values stages them first."""
    record, c, name = stack.record, stack.config, f"layers.{index}.self_attn"
    rope, eps, dim = stack.ropes[layer.rope], c.rms_norm_eps, layer.head_dim
    q, mixed = record.buffer("q", c.heads * dim), record.buffer("mixed", c.heads * dim)
    record(projection(record, normed, f"{name}.q_proj", q))
    if layer.kv_source == index:
        k = v = record.buffer("k", layer.kv_heads * dim)
        record(projection(record, normed, f"{name}.k_proj", k))
        if not layer.k_eq_v:
            v = record.buffer("v", layer.kv_heads * dim)
            record(projection(record, normed, f"{name}.v_proj", v))
        if c.value_norm:
            value = record.buffer("value", layer.kv_heads * dim)
            record(HeadNorm(v, None, eps, layer.kv_heads, dim, value))
            v = value
        record(HeadNorm(k, f"{name}.k_norm.weight", eps, layer.kv_heads, dim, k))
        record(Turn(k, rope, layer.kv_heads, dim), StoreKv(k, v, stack.reads[index]))
    record(HeadNorm(q, f"{name}.q_norm.weight", eps, c.heads, dim, q))
    record(Turn(q, rope, c.heads, dim, c.attention_scale))
    record(Attention(q, stack.reads[index], c.heads, mixed))
    record(projection(record, mixed, f"{name}.o_proj", y))


def mlp(stack: Stack, name: str, layer: Layer, normed: str, y: str) -> None:
    """y = down(gelu(gate(normed)) * up(normed))"""
    record = stack.record
    gate, up, gated = (record.buffer(part, layer.mlp_width) for part in ("gate", "up", "gated"))
    record(projection(record, normed, f"{name}.mlp.gate_proj", gate))
    record(projection(record, normed, f"{name}.mlp.up_proj", up))
    record(GeluGate(gate, up, gated), projection(record, gated, f"{name}.mlp.down_proj", y))


def mixture_of_experts(stack: Stack, name: str, y: str) -> None:
    """y = norm1(y) + norm2(experts(x)): dense MLP and experts read the same residual."""
    record, c, x, eps, experts = stack.record, stack.config, stack.x, stack.config.rms_norm_eps, stack.config.experts
    assert experts is not None
    record(RmsNorm(y, f"{name}.post_feedforward_layernorm_1.weight", eps, y))
    routed, scores = record.buffer("routed", c.hidden_size), record.buffer("scores", experts.count)
    share, chosen = record.buffer("share", experts.top_k), record.buffer("chosen", experts.top_k)
    record(RmsNorm(x, None, eps, routed))
    record(Multiply(routed, f"{name}.router.scale", 1 / math.sqrt(c.hidden_size)))
    record(Linear(routed, f"{name}.router.proj.weight", scores))
    record(Route(scores, experts.top_k, f"{name}.router.per_expert_scale", chosen, share))
    normed, mixed = record.buffer("normed", c.hidden_size), record.buffer("expert mix", c.hidden_size)
    gated = record.buffer("expert gated", experts.width, experts.top_k)
    parts = record.buffer("expert parts", c.hidden_size, experts.top_k)
    record(RmsNorm(x, f"{name}.pre_feedforward_layernorm_2.weight", eps, normed))
    record(ExpertGated(normed, chosen, experts.top_k, f"{name}.experts.gate_up_proj", gated))
    record(ExpertLinear(gated, chosen, experts.top_k, f"{name}.experts.down_proj", parts))
    record(CombineExperts(parts, share, experts.top_k, mixed))
    record(RmsNorm(mixed, f"{name}.post_feedforward_layernorm_2.weight", eps, mixed), Add(mixed, y))


def per_layer_input(stack: Stack, index: int, y: str) -> None:
    """x += norm(project(gelu(gate(x)) * this layer's per-layer embedding))"""
    record, c, x, name = stack.record, stack.config, stack.x, f"layers.{index}"
    assert stack.ple is not None
    gate, gated = record.buffer("ple gate", c.ple_width), record.buffer("ple gated", c.ple_width)
    record(projection(record, x, f"{name}.per_layer_input_gate", gate))
    record(GeluGate(gate, stack.ple, gated, offset=index * c.ple_width))
    record(projection(record, gated, f"{name}.per_layer_projection", y))
    record(RmsNorm(y, f"{name}.post_per_layer_input_norm.weight", c.rms_norm_eps, y), Add(y, x))
