"""The ordered head: tokens in clusters of equal size, of which a step scores only the most promising."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812  (torch's own convention)
from torch import Tensor

from outrider.arrays import Floats

Ids = npt.NDArray[np.int64]

_FREQUENT_SHARE = 16
"""One in so many clusters holds the tokens that are used most, so that a few clusters cover most of what is said."""


def order_tokens(head: Floats, uses: npt.NDArray[np.float64], clusters: int) -> Ids:
    """The token ordering of `masked_embedding`: cluster c holds `ordering[c * size : (c + 1) * size]`.

    Frequent tokens are clustered among themselves. Clusters are made by halving along the direction in which the rows
    differ most, again and again, which keeps them of equal size.

    Args:
        head: (vocabulary, hidden) rows of the head.
        uses: (vocabulary,) how often each token was said.
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
    """Centroids whose products with the head's input rank the cluster of the token that comes first.

    Args:
        states: (samples, hidden) what the head was applied to.
        labels: (samples,) the cluster of the target's likeliest token there.
        start: (clusters, hidden).

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
    """How often the right cluster is among the `top` that are scored."""
    hits = 0
    for rows, wanted in zip(states.split(4096), labels.split(4096), strict=True):
        hits += int((torch.topk(rows @ centroids.T, top).indices == wanted[:, None]).any(-1).sum())
    return hits / max(len(states), 1)
