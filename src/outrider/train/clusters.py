"""The clustered head: tokens in clusters of equal size, of which a step scores only the best k."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812  (torch's own convention)
from torch import Tensor

from outrider.arrays import Floats

Ids = npt.NDArray[np.int64]

_FREQUENT_SHARE = 16
"""One of this many clusters holds the most frequent tokens, so that few clusters cover most of a text."""


def order_tokens(head: Floats, uses: npt.NDArray[np.float64], clusters: int) -> Ids:
    """The token ordering of `masked_embedding`: cluster c holds `ordering[c * size : (c + 1) * size]`.

    Frequent tokens are clustered among themselves. Clusters come from repeated halving along the principal component of
    the rows, which keeps their sizes equal.

    Args:
        head: (vocabulary, hidden) rows of the head.
        uses: (vocabulary,) frequency of each token.
        clusters: their number; a divisor of the vocabulary.

    Returns:
        (vocabulary,) token ids.
    """
    size = len(head) // clusters
    frequent = max(clusters // _FREQUENT_SHARE, 1)
    ranked = np.argsort(-uses, kind="stable")
    return np.concatenate(
        [
            _halved(head, ranked[: frequent * size], frequent, size),
            _halved(head, ranked[frequent * size :], clusters - frequent, size),
        ]
    )


def _halved(head: Floats, tokens: Ids, clusters: int, size: int) -> Ids:
    if clusters <= 1:
        return np.sort(tokens)
    rows = head[tokens] - head[tokens].mean(axis=0)
    _, vectors = np.linalg.eigh(rows.T @ rows)
    along = tokens[np.argsort(rows @ vectors[:, -1], kind="stable")]
    left = clusters // 2
    return np.concatenate(
        [_halved(head, along[: left * size], left, size), _halved(head, along[left * size :], clusters - left, size)]
    )


def train_centroids(
    states: Tensor, labels: Tensor, start: Tensor, *, epochs: int = 4, rate: float = 3e-3, batch: int = 4096
) -> Tensor:
    """Centroids whose dot products with the head's input rank highest the cluster of the target's likeliest token.

    Args:
        states: (samples, hidden) inputs of the head.
        labels: (samples,) the cluster of the target's likeliest token there.
        start: (clusters, hidden) initial centroids.

    Returns:
        (clusters, hidden).
    """
    centroids = start.clone().requires_grad_(True)
    optimizer = torch.optim.AdamW([centroids], lr=rate, weight_decay=0.0)
    total, done = epochs * (len(states) // batch + 1), 0
    for _ in range(epochs):
        for chosen in torch.randperm(len(states)).split(batch):
            optimizer.param_groups[0]["lr"] = rate * (1 - done / (total + 1))
            loss = F.cross_entropy(states[chosen] @ centroids.T, labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            done += 1
    return centroids.detach()


def recall(states: Tensor, labels: Tensor, centroids: Tensor, top: int) -> float:
    """Share of samples whose cluster is among the `top` that are scored."""
    hits = 0
    for rows, wanted in zip(states.split(4096), labels.split(4096), strict=True):
        hits += int((torch.topk(rows @ centroids.T, top).indices == wanted[:, None]).any(-1).sum())
    return hits / max(len(states), 1)
