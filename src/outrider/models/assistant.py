"""The MTP drafter (`gemma4_assistant`): a few Gemma layers that attend to the target's keys and values.

One step proposes one token: the target's embedding of the last token and a hidden state go in, logits and the next
hidden state come out. The position, that of the last certain token, stays the same through a round, and no key is ever
written. Reference: `transformers` models/gemma4_assistant and `SinglePositionMultiTokenCandidateGenerator`.
"""

from __future__ import annotations

import math
from collections.abc import Container
from dataclasses import dataclass

import numpy as np

from outrider.checkpoints.config import AssistantConfig, ModelConfig, last_kv_layers
from outrider.checkpoints.tensors import EMBEDDING, head_of
from outrider.errors import CheckpointError
from outrider.executor import Executor
from outrider.models.gemma import HIDDEN, kv_layers, kv_numbers
from outrider.models.layer import Stack, decoder_layer, rope_tables
from outrider.program import TARGET, ClusterLinear, Copy, Gather, Head, Linear, Program, Recorder, RmsNorm, Route

LOGITS = "logits"
"""The buffer (rows * top_k, cluster size) of scores, where the drafter has clusters."""


@dataclass(frozen=True)
class Drafting:
    """A drafter that an executor runs.

    `hidden` is the buffer (rows, backbone_hidden_size) that holds the hidden state going in and, after a run, the next
    one. With clusters, `logits` is the buffer (rows * top_k, cluster size) of scores and `ordering` (clusters, cluster
    size) the tokens they belong to; without, both are None and top_k is 0.
    """

    program: Executor
    logits: str | None = None
    ordering: np.ndarray[tuple[int, int], np.dtype[np.int32]] | None = None
    top_k: int = 0
    hidden: str = HIDDEN


def check_pair(target: ModelConfig, assistant: AssistantConfig) -> None:
    """That a drafter fits its target.

    Raises:
        CheckpointError: names the number that differs.
    """
    pairs = [
        ("hidden size of its target", assistant.backbone_hidden_size, target.hidden_size),
        ("vocabulary", assistant.text.vocab_size, target.vocab_size),
    ]
    sources = last_kv_layers(target)
    for layer in assistant.text.layers:
        if layer.kind not in sources:
            pairs.append((f"{layer.kind} layers", 1, 0))
            continue
        theirs = target.layers[sources[layer.kind]]
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


def record_assistant(target: ModelConfig, assistant: AssistantConfig, names: Container[str]) -> Program:
    """One step of a drafter that was checked with `check_pair`.

    Args:
        names: of the drafter's tensors.
    """
    c, numbers, sources = assistant.text, kv_numbers(target), last_kv_layers(target)
    record = Recorder(names, kv_layers(target))
    hidden = record.buffer(HIDDEN, assistant.backbone_hidden_size)
    embedding, both = record.buffer("embedding", target.hidden_size), record.buffer("both", 2 * target.hidden_size)
    x = record.buffer("x", c.hidden_size)
    record(Gather(f"{TARGET}{EMBEDDING}", math.sqrt(target.hidden_size), embedding))
    record(Copy(embedding, both), Copy(hidden, both, target.hidden_size))
    record(Linear(both, "pre_projection.weight", x))
    reads = tuple(numbers[sources[layer.kind]] for layer in c.layers)
    stack = Stack(record, c, x, rope_tables(record, c), reads)
    for index in range(len(c.layers)):
        decoder_layer(stack, index)
    record(RmsNorm(x, "norm.weight", c.rms_norm_eps, x), Linear(x, "post_projection.weight", hidden))
    wanted = [HIDDEN]
    if assistant.use_ordered_embeddings:
        wanted.append(_clustered_head(record, assistant, x))
    else:
        record(Head(x, head_of(record.names), 0.0))
    return record.program(every_row=wanted, cross_attention=True)


def _clustered_head(record: Recorder, assistant: AssistantConfig, x: str) -> str:
    """Scores only the tokens of the `centroid_top_k` clusters whose centroids score best."""
    count, top_k = assistant.num_centroids, assistant.centroid_top_k
    scores, share = record.buffer("scores", count), record.buffer("share", top_k)
    chosen, logits = record.buffer("chosen", top_k), record.buffer(LOGITS, assistant.text.vocab_size // count, top_k)
    record(Linear(x, "masked_embedding.centroids.weight", scores), Route(scores, top_k, None, chosen, share))
    ordering = "masked_embedding.token_ordering"
    record(ClusterLinear(x, chosen, top_k, head_of(record.names), ordering, count, logits))
    return logits
