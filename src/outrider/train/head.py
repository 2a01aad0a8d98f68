"""The last step of training: the head's tokens in clusters, by the inputs that the trained drafter gives it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from outrider.train.batches import Batches
from outrider.train.clusters import order_tokens, recall, train_centroids
from outrider.train.dataset import Dataset, Span
from outrider.train.model import Drafter


@torch.no_grad()
def collect(drafter: Drafter, batches: Batches, spans: list[Span], steps: int, most: int) -> tuple[Tensor, Tensor]:
    """(samples, hidden) inputs of the head, and (samples,) the target's likeliest token for each."""
    states, tokens, count = [], [], 0
    for begin in range(0, len(spans), 4):
        batch = batches.make(spans[begin : begin + 4])
        state, rounds = batch.state, batch.state.shape[1]
        for step in range(1, steps + 1):
            given = batch.tokens[:, step : step + rounds]
            out, state = drafter.step(given, state, batch.positions, batch.kv, batch.mask)
            position = slice(step + 1, step + 1 + rounds)
            valid = batch.known[:, position]
            states.append(out[valid])
            tokens.append(batch.top_tokens[:, position][valid][:, 0])
            count += len(states[-1])
        if count >= most:
            break
    return torch.cat(states), torch.cat(tokens)


def build_head(
    drafter: Drafter, data: Dataset, batches: Batches, training: list[Span], held_out: list[Span], steps: int
) -> dict[str, float]:
    """Order the tokens and train the centroids; the number of clusters, those scored, and the held-out recall.

    Nothing where the head has no clusters.
    """
    embedder, config = drafter.assistant.masked_embedding, drafter.assistant.config
    if embedder is None:
        drafter.head()
        return {}
    head = drafter.head()
    vocabulary, clusters = len(head), config.num_centroids
    uses = np.bincount(np.asarray(data.fields["tokens"]), minlength=vocabulary)
    likely = np.bincount(np.asarray(data.fields["top_tokens"]).reshape(-1), minlength=vocabulary)
    ordering = order_tokens(head.numpy(), uses + 0.05 * likely, clusters)
    cluster = torch.empty(vocabulary, dtype=torch.long)
    cluster[torch.from_numpy(ordering)] = torch.arange(clusters).repeat_interleave(vocabulary // clusters)
    states, tokens = collect(drafter, batches, training, steps, most=150_000)
    start = head[torch.from_numpy(ordering)].view(clusters, -1, head.shape[1]).mean(1)
    centroids = train_centroids(states, cluster[tokens], start)
    with torch.no_grad():
        embedder.token_ordering.copy_(torch.from_numpy(ordering))
        embedder.centroids.weight.copy_(centroids)
    states, tokens = collect(drafter, batches, held_out, steps, most=20_000)
    top = config.centroid_intermediate_top_k
    return {"clusters": clusters, "scored": top, "recall": recall(states, cluster[tokens], centroids, top)}
