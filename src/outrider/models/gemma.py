"""Gemma 3 and Gemma 4 text models: the architecture, and nothing else.

The forward pass is written as calls in the order of the data; each records one kernel call (csrc/program/program.h),
and the native core replays the list for any number of rows. Variants are data: what a layer has is read from its config
and from which tensors the checkpoint holds. Reference: `transformers` models/gemma3 and models/gemma4.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Context, Decimal

import numpy as np

from outrider.backends import cpu
from outrider.backends.cpu.weights import Floats, WeightStore
from outrider.checkpoints.config import Layer, ModelConfig, Rope, own_kv_layers


@dataclass(frozen=True)
class Forward:
    """A recorded model.

    `hidden` is the buffer (outputs, hidden_size) of final hidden states after the last norm; `kv_layer` maps a
    model layer that makes keys and values to its layer in a `KvCache`.
    """

    config: ModelConfig
    program: cpu.Program
    hidden: int
    kv_layer: dict[int, int]


def kv_shapes(config: ModelConfig) -> list[cpu.KvShape]:
    """The cache layers of a model, in the order of the layers that make keys and values."""
    layers = [config.layers[i] for i in own_kv_layers(config)]
    return [cpu.KvShape(layer.kv_heads, layer.head_dim, layer.window or 0) for layer in layers]


def inverse_frequencies(rope: Rope) -> Floats:
    """(dims / 2) angles per position, float32: theta^(-2i / dims) for the pairs that turn, 0 for the rest.

    The steps and roundings are the reference's, except that the power is correctly rounded. numpy's power differs by
    processor in the last bit (AVX-512 uses another library), and that bit decides near ties between tokens.
    """
    exponents = np.arange(0, rope.rotated, 2, dtype=np.float32) / np.float32(rope.dims)
    theta, exactly = Decimal(float(np.float32(rope.theta))), Context(prec=40)
    powers = np.array([float(exactly.power(theta, Decimal(float(e)))) for e in exponents], np.float32)
    turning = (np.float32(1) / powers) / np.float32(rope.factor)
    return np.concatenate([turning, np.zeros(rope.dims // 2 - len(turning), np.float32)]).astype(np.float32)


def record_gemma(
    config: ModelConfig, weights: WeightStore, pool: cpu.ThreadPool, *, max_rows: int, kv_format: cpu.KvFormat
) -> Forward:
    """Records the forward pass of a target.

    Args:
        max_rows: most rows of one pass.
        kv_format: how keys and values are kept.
    """
    return _Recorder(config, weights, pool, max_rows, kv_format).record()


class _Recorder:
    def __init__(
        self,
        config: ModelConfig,
        weights: WeightStore,
        pool: cpu.ThreadPool,
        max_rows: int,
        kv_format: cpu.KvFormat,
    ) -> None:
        self.config, self.weights = config, weights
        self.program = cpu.Program(max_rows, kv_shapes(config), kv_format, pool)
        self.kv_layer = {layer: number for number, layer in enumerate(own_kv_layers(config))}
        self.buffers: dict[tuple[str, int], int] = {}
        self.ropes: dict[Rope, int] = {}
        self.ple: int | None = None

    def record(self) -> Forward:
        c, p = self.config, self.program
        x = self.buffer("x", c.hidden_size)
        p.gather(self.weights.table("embed_tokens.weight"), math.sqrt(c.hidden_size), x)
        if c.ple_width:
            self.ple = self.per_layer_inputs(x)
        for rope in dict.fromkeys(layer.rope for layer in c.layers):
            self.ropes[rope] = self.buffer(f"rope {len(self.ropes)}", rope.dims)
            p.rope_table(inverse_frequencies(rope), self.ropes[rope])
        for index, layer in enumerate(c.layers):
            self.decoder_layer(index, layer, x)
        hidden = self.buffer("hidden", c.hidden_size)
        p.rms_norm(x, self.norm("norm"), c.rms_norm_eps, hidden)
        head = "lm_head.weight" if "lm_head.weight" in self.weights else "embed_tokens.weight"
        p.head(hidden, self.weights.matrix(head), c.logit_softcap or 0.0)
        return Forward(c, p, hidden, self.kv_layer)

    def decoder_layer(self, index: int, layer: Layer, x: int) -> None:
        c, p, name = self.config, self.program, f"layers.{index}"
        normed, y = self.buffer("normed", c.hidden_size), self.buffer("y", c.hidden_size)

        p.rms_norm(x, self.norm(f"{name}.input_layernorm"), c.rms_norm_eps, normed)
        self.attention(index, layer, x, normed, y)
        p.rms_norm(y, self.norm(f"{name}.post_attention_layernorm"), c.rms_norm_eps, y)
        p.add(y, x)

        p.rms_norm(x, self.norm(f"{name}.pre_feedforward_layernorm"), c.rms_norm_eps, normed)
        self.mlp(name, layer, normed, y)
        if c.experts:
            self.mixture_of_experts(name, x, y)
        p.rms_norm(y, self.norm(f"{name}.post_feedforward_layernorm"), c.rms_norm_eps, y)
        p.add(y, x)

        if self.ple is not None:
            self.per_layer_input(index, x, y)
        if f"{name}.layer_scalar" in self.weights:
            p.scale(x, self.weights.scalar(f"{name}.layer_scalar"))

    def attention(self, index: int, layer: Layer, x: int, normed: int, y: int) -> None:
        c, p, name = self.config, self.program, f"layers.{index}.self_attn"
        width, rope = c.heads * layer.head_dim, self.ropes[layer.rope]
        q, mixed = self.buffer("q", width), self.buffer("mixed", width)
        if layer.kv_source == index:
            k = self.buffer("k", layer.kv_heads * layer.head_dim)
            v = k if layer.k_eq_v else self.buffer("v", layer.kv_heads * layer.head_dim)
            parts = {"q": q, "k": k} | ({} if layer.k_eq_v else {"v": v})
            p.linear(normed, [self.matrix(f"{name}.{part}_proj") for part in parts], list(parts.values()))
            if c.value_norm:
                value = self.buffer("value", layer.kv_heads * layer.head_dim)
                p.head_norm(v, None, c.rms_norm_eps, layer.kv_heads, layer.head_dim, value)
                v = value
            p.head_norm(k, self.norm(f"{name}.k_norm"), c.rms_norm_eps, layer.kv_heads, layer.head_dim, k)
            p.rope(k, rope, layer.kv_heads, layer.head_dim, 1.0)
            p.store_kv(k, v, self.kv_layer[index])
        else:
            p.linear(normed, [self.matrix(f"{name}.q_proj")], [q])
        p.head_norm(q, self.norm(f"{name}.q_norm"), c.rms_norm_eps, c.heads, layer.head_dim, q)
        p.rope(q, rope, c.heads, layer.head_dim, c.attention_scale)
        if index == max(self.kv_layer):
            # Nothing above makes keys or values, so only the rows whose result is wanted go on. A prompt's other
            # rows end here, which for E2B, where 20 of 35 layers share, is most of prefill.
            p.keep_outputs([x, q, *self.ropes.values()] + ([] if self.ple is None else [self.ple]))
        p.attention(q, self.kv_layer[layer.kv_source], c.heads, mixed)
        p.linear(mixed, [self.matrix(f"{name}.o_proj")], [y])

    def mlp(self, name: str, layer: Layer, normed: int, y: int) -> None:
        gate, up, down = (self.matrix(f"{name}.mlp.{part}_proj") for part in ("gate", "up", "down"))
        gated = self.buffer("gated", layer.mlp_width)
        self.program.gated_linear(normed, gate, up, gated)
        self.program.linear(gated, [down], [y])

    def mixture_of_experts(self, name: str, x: int, y: int) -> None:
        """y = norm1(y) + norm2(experts(x)): the experts run beside the dense MLP, on the same residual."""
        c, p, experts = self.config, self.program, self.config.experts
        assert experts is not None
        p.rms_norm(y, self.norm(f"{name}.post_feedforward_layernorm_1"), c.rms_norm_eps, y)
        routed, scores = self.buffer("routed", c.hidden_size), self.buffer("scores", experts.count)
        p.rms_norm(x, None, c.rms_norm_eps, routed)
        p.multiply(routed, self.weights.vector(f"{name}.router.scale") * np.float32(1 / math.sqrt(c.hidden_size)))
        p.linear(routed, [self.matrix(f"{name}.router.proj")], [scores])
        share = self.buffer("share", experts.top_k)
        p.route(scores, experts.top_k, self.weights.vector(f"{name}.router.per_expert_scale"), share)
        normed = self.buffer("normed", c.hidden_size)
        p.rms_norm(x, self.norm(f"{name}.pre_feedforward_layernorm_2"), c.rms_norm_eps, normed)
        gated = self.buffer("expert gated", experts.width, rows_per_row=experts.top_k)
        parts = self.buffer("expert parts", c.hidden_size, rows_per_row=experts.top_k)
        p.expert_gated_linear(normed, experts.top_k, self.weights.matrix(f"{name}.experts.gate_up_proj"), gated)
        p.expert_linear(gated, experts.top_k, self.weights.matrix(f"{name}.experts.down_proj"), parts)
        mixed = self.buffer("expert mix", c.hidden_size)
        p.combine_experts(parts, share, experts.top_k, mixed)
        p.rms_norm(mixed, self.norm(f"{name}.post_feedforward_layernorm_2"), c.rms_norm_eps, mixed)
        p.add(mixed, y)

    def per_layer_inputs(self, x: int) -> int:
        """(rows, layers * ple_width): per-layer embeddings, from the token itself and from its embedding."""
        c, p, width = self.config, self.program, len(self.config.layers) * self.config.ple_width
        ple, identity = self.buffer("ple", width), self.buffer("ple identity", width)
        p.gather(self.weights.table("embed_tokens_per_layer.weight"), math.sqrt(c.ple_width), identity)
        p.linear(x, [self.matrix("per_layer_model_projection")], [ple])
        p.scale(ple, 1 / math.sqrt(c.hidden_size))
        norm = self.norm("per_layer_projection_norm")
        p.head_norm(ple, norm, c.rms_norm_eps, len(c.layers), c.ple_width, ple)
        p.add(identity, ple)
        p.scale(ple, math.sqrt(0.5))
        return ple

    def per_layer_input(self, index: int, x: int, y: int) -> None:
        c, p, name = self.config, self.program, f"layers.{index}"
        assert self.ple is not None
        gate = self.buffer("ple gate", c.ple_width)
        p.linear(x, [self.matrix(f"{name}.per_layer_input_gate")], [gate])
        p.gelu_gate(gate, self.ple, index * c.ple_width, gate)
        p.linear(gate, [self.matrix(f"{name}.per_layer_projection")], [y])
        p.rms_norm(y, self.norm(f"{name}.post_per_layer_input_norm"), c.rms_norm_eps, y)
        p.add(y, x)

    def buffer(self, name: str, width: int, rows_per_row: int = 1) -> int:
        """One buffer per name and width, shared by all layers: a layer is done with it before the next begins."""
        if (name, width) not in self.buffers:
            self.buffers[name, width] = self.program.buffer(name, width, rows_per_row)
        return self.buffers[name, width]

    def matrix(self, name: str) -> cpu.Weight:
        return self.weights.matrix(f"{name}.weight")

    def norm(self, name: str) -> Floats:
        return self.weights.vector(f"{name}.weight")
