"""The MTP drafter (`gemma4_assistant`): a few Gemma layers that read the target's keys and values.

One step proposes one token: the target's embedding of the last token and a hidden state go in, logits and the next
hidden state come out. The position stays the same through a round, and no key is ever written. Reference:
`transformers` models/gemma4_assistant and `SinglePositionMultiTokenCandidateGenerator`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from outrider.backends import cpu
from outrider.backends.cpu.weights import Floats, WeightStore
from outrider.checkpoints.config import AssistantConfig, Layer, ModelConfig, own_kv_layers
from outrider.errors import CheckpointError
from outrider.models.gemma import inverse_frequencies, kv_shapes

POSITION_OFFSET = 0
"""Where a round stands: 0 is the position of the last certain token, as in the reference; -1 the last one that the
cache holds, as in some ports."""


@dataclass(frozen=True)
class Drafting:
    """A recorded drafter. `hidden` is the buffer (rows, backbone_hidden_size) that holds the hidden state going in and,
    after a run, the next one. With clusters, `logits` is the buffer (rows * top_k, cluster size) of scores and
    `ordering` (clusters, cluster size) the tokens they belong to."""

    program: cpu.Program
    hidden: int
    logits: int | None
    ordering: np.ndarray[tuple[int, int], np.dtype[np.int32]] | None
    top_k: int


def check_pair(target: ModelConfig, assistant: AssistantConfig) -> None:
    """That a drafter fits its target.

    Raises:
        CheckpointError: says which number differs.
    """
    pairs = [
        ("hidden size of its target", assistant.backbone_hidden_size, target.hidden_size),
        ("vocabulary", assistant.text.vocab_size, target.vocab_size),
    ]
    for layer in assistant.text.layers:
        source = _source(target, layer)
        if source is None:
            pairs.append((f"{layer.kind} layers", 1, 0))
            continue
        theirs = target.layers[source]
        pairs += [
            (f"head_dim of its {layer.kind} layers", layer.head_dim, theirs.head_dim),
            (f"KV heads of its {layer.kind} layers", layer.kv_heads, theirs.kv_heads),
        ]
    for what, own, wanted in pairs:
        if own != wanted:
            raise CheckpointError(
                f"the drafter does not fit the model: {what} is {own}, and the model's is {wanted}",
                remedy="Use the drafter that was made for this model, or drafter=None",
            )


def _source(target: ModelConfig, layer: Layer) -> int | None:
    """The target layer whose keys and values a drafter layer reads: the last of its kind that makes any."""
    return max((i for i in own_kv_layers(target) if target.layers[i].kind == layer.kind), default=None)


def record_assistant(
    target: ModelConfig,
    target_weights: WeightStore,
    assistant: AssistantConfig,
    weights: WeightStore,
    pool: cpu.ThreadPool,
    *,
    max_rows: int,
    kv_format: cpu.KvFormat,
    position_offset: int = POSITION_OFFSET,
) -> Drafting:
    """Records one step of a drafter that was checked with `check_pair`.

    Args:
        kv_format: as the target's cache.
    """
    c, eps = assistant.text, assistant.text.rms_norm_eps
    program = cpu.Program(max_rows, kv_shapes(target), kv_format, pool, True, position_offset)
    kv_layer = {layer: number for number, layer in enumerate(own_kv_layers(target))}
    hidden = program.buffer("hidden", assistant.backbone_hidden_size)
    embedding = program.buffer("embedding", target.hidden_size)
    both = program.buffer("both", 2 * target.hidden_size)
    x, normed, y = (program.buffer(name, c.hidden_size) for name in ("x", "normed", "y"))

    program.gather(target_weights.table("embed_tokens.weight"), math.sqrt(target.hidden_size), embedding)
    program.copy(embedding, both, 0)
    program.copy(hidden, both, target.hidden_size)
    program.linear(both, [weights.matrix("pre_projection.weight")], [x])
    ropes: dict[object, int] = {}
    buffers: dict[tuple[str, int], int] = {}

    def buffer(name: str, width: int) -> int:
        if (name, width) not in buffers:
            buffers[name, width] = program.buffer(name, width)
        return buffers[name, width]

    def norm(name: str) -> Floats:
        return weights.vector(f"{name}.weight")

    for index, layer in enumerate(c.layers):
        name, width = f"layers.{index}", c.heads * layer.head_dim
        if layer.rope not in ropes:
            ropes[layer.rope] = program.buffer(f"rope {index}", layer.head_dim)
            program.rope_table(inverse_frequencies(layer.rope), ropes[layer.rope])
        q, mixed, gated = buffer("q", width), buffer("mixed", width), buffer("gated", layer.mlp_width)
        source = _source(target, layer)
        assert source is not None

        program.rms_norm(x, norm(f"{name}.input_layernorm"), eps, normed)
        program.linear(normed, [weights.matrix(f"{name}.self_attn.q_proj.weight")], [q])
        program.head_norm(q, norm(f"{name}.self_attn.q_norm"), eps, c.heads, layer.head_dim, q)
        program.rope(q, ropes[layer.rope], c.heads, layer.head_dim, c.attention_scale)
        program.attention(q, kv_layer[source], c.heads, mixed)
        program.linear(mixed, [weights.matrix(f"{name}.self_attn.o_proj.weight")], [y])
        program.rms_norm(y, norm(f"{name}.post_attention_layernorm"), eps, y)
        program.add(y, x)

        program.rms_norm(x, norm(f"{name}.pre_feedforward_layernorm"), eps, normed)
        gate, up = (weights.matrix(f"{name}.mlp.{part}_proj.weight") for part in ("gate", "up"))
        program.gated_linear(normed, gate, up, gated)
        program.linear(gated, [weights.matrix(f"{name}.mlp.down_proj.weight")], [y])
        program.rms_norm(y, norm(f"{name}.post_feedforward_layernorm"), eps, y)
        program.add(y, x)
        if f"{name}.layer_scalar" in weights:
            program.scale(x, weights.scalar(f"{name}.layer_scalar"))

    program.rms_norm(x, norm("norm"), eps, x)
    program.linear(x, [weights.matrix("post_projection.weight")], [hidden])
    if not assistant.use_ordered_embeddings:
        program.keep_outputs([x])
        program.head(x, weights.matrix("embed_tokens.weight"), 0.0)
        return Drafting(program, hidden, None, None, 0)
    return _clustered_head(assistant, weights, program, x, hidden)


def _clustered_head(
    assistant: AssistantConfig, weights: WeightStore, program: cpu.Program, x: int, hidden: int
) -> Drafting:
    """Scores only the tokens of the `centroid_top_k` clusters whose centroids score best."""
    count, top_k = assistant.num_centroids, assistant.centroid_top_k
    size = assistant.text.vocab_size // count
    ordering = weights.integers("masked_embedding.token_ordering").reshape(count, size)
    scores, share = program.buffer("scores", count), program.buffer("share", top_k)
    logits = program.buffer("logits", size, top_k)
    program.linear(x, [weights.matrix("masked_embedding.centroids.weight")], [scores])
    program.route(scores, top_k, np.ones(count, np.float32), share)
    clusters = weights.reordered("embed_tokens.weight", ordering)
    program.cluster_linear(x, top_k, clusters, logits)
    return Drafting(program, hidden, logits, ordering, top_k)
