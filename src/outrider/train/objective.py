"""The training objective: the target's own distribution at every step of a draft."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812  (torch's own convention)
from torch import Tensor

from outrider.train.batches import Batch
from outrider.train.model import Drafter

_TOP = 10
"""Of a position's likeliest tokens, those that are always candidates: the rest are many and improbable."""
_MIN_REACH = 0.1
"""The least weight of a step, for rounds that are unlikely to reach it."""


@dataclass(frozen=True)
class Outcome:
    """Of one batch.

    Attributes:
        loss: a scalar.
        accepted: (steps,) rounds whose tokens up to this step were all accepted.
        tried: (steps,) rounds whose tokens before this step were all accepted.
    """

    loss: Tensor
    accepted: Tensor
    tried: Tensor


def candidates_of(batch: Batch, index_of: dict[int, int], negatives: Tensor) -> Tensor:
    """(candidates,) indices into the active head: the likeliest tokens of the batch's distributions, and `negatives`.

    Args:
        index_of: token -> index into the active head.
        negatives: (negatives,) indices into the active head, drawn at random.
    """
    likely: Tensor = torch.unique(batch.top_tokens[batch.known][:, :_TOP])
    both: Tensor = torch.cat([_indices(likely, index_of), negatives])
    return torch.unique(both)  # type: ignore[no-any-return]


def _indices(tokens: Tensor, index_of: dict[int, int]) -> Tensor:
    return torch.tensor([index_of[t] for t in tokens.tolist() if t in index_of], dtype=torch.long)


def rounds_of(drafter: Drafter, batch: Batch, steps: int, candidates: Tensor, lookup: Tensor) -> Outcome:
    """Run the rounds of a batch for `steps` steps with teacher forcing: each step is fed the target's own token.

    The loss of a step is the cross-entropy with the target's distribution over its likeliest tokens (distillation,
    Hinton et al. 2015), weighted by the drafter's own probability that a round reaches the step: as in a draft, a token
    counts only if all tokens before it are accepted.

    Args:
        candidates: (candidates,) indices into the active head, over which distributions are normalized.
        lookup: (vocabulary,) index of a token among the candidates, or -1.
    """
    rounds = batch.state.shape[1]
    head = drafter.active_head[candidates]
    state, loss, weights = batch.state, torch.zeros(()), torch.zeros(())
    reach = torch.ones(batch.state.shape[:2])
    accepted_so_far = torch.ones(batch.state.shape[:2], dtype=torch.bool)
    accepted, tried = torch.zeros(steps), torch.zeros(steps)
    for step in range(1, steps + 1):
        given = batch.tokens[:, step : step + rounds]
        out, state = drafter.step(given, state, batch.positions, batch.kv, batch.mask)
        position = slice(step + 1, step + 1 + rounds)
        valid = batch.known[:, position]
        scores = F.log_softmax(out[valid] @ head.T, -1)
        where = lookup[batch.top_tokens[:, position][valid]]
        p = batch.top_logprobs[:, position][valid].exp() * (where >= 0)
        likelihood = scores.gather(1, where.clamp(min=0))
        each = -(p * likelihood).sum(-1) / p.sum(-1).clamp(min=1e-6)
        weight = reach[valid].clamp(min=_MIN_REACH)
        loss = loss + (weight * each).sum()
        weights = weights + weight.sum()
        with torch.no_grad():
            actual = lookup[batch.tokens[:, position][valid]]
            own = torch.where(actual >= 0, scores.gather(1, actual.clamp(min=0)[:, None])[:, 0].exp(), 0.0)
            reach = reach.masked_scatter(valid, reach[valid] * own)
            # Greedy acceptance: the likeliest tokens of drafter and target agree, here and at all steps before.
            hit = scores.argmax(-1) == where[:, 0]
            tried[step - 1] = (accepted_so_far & valid).sum()
            accepted_so_far = (accepted_so_far & valid).masked_scatter(valid, accepted_so_far[valid] & hit)
            accepted[step - 1] = accepted_so_far.sum()
    return Outcome(loss / weights.clamp(min=1), accepted, tried)
