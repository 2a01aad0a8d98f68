"""What a drafter is trained for: that the target says what it proposes, step after step."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812  (torch's own convention)
from torch import Tensor

from outrider.train.batches import Batch
from outrider.train.model import Drafter

_NAMED = 10
"""Of a place's likeliest tokens, those that are sure to be candidates: the rest are many and weigh little."""
_LEAST_REACH = 0.1
"""A round that is unlikely to get to a step still teaches a little there."""


@dataclass(frozen=True)
class Outcome:
    """loss: a scalar. accepted, tried: (steps,) rounds whose steps so far were all right, and those that got there."""

    loss: Tensor
    accepted: Tensor
    tried: Tensor


def candidates_of(batch: Batch, places: dict[int, int], negatives: Tensor) -> Tensor:
    """(candidates,) indices into the active head: all that the batch's distributions name, and the negatives."""
    named: Tensor = torch.unique(batch.top_tokens[batch.known][:, :_NAMED])
    both: Tensor = torch.cat([_places(named, places), negatives])
    return torch.unique(both)  # type: ignore[no-any-return]


def _places(tokens: Tensor, places: dict[int, int]) -> Tensor:
    return torch.tensor([places[t] for t in tokens.tolist() if t in places], dtype=torch.long)


def rounds_of(drafter: Drafter, batch: Batch, steps: int, candidates: Tensor, lookup: Tensor) -> Outcome:
    """Runs the rounds of a batch for `steps` steps, each fed the token that the target really said.

    The loss of a step is the cross-entropy with the target's own distribution over its likeliest tokens (distillation,
    Hinton et al. 2015), weighted by the chance, by the drafter's own account, that a round gets there (as in a draft,
    where a token counts only if all before it were right).

    Args:
        candidates: indices into the active head over which a distribution is normalised.
        lookup: (vocabulary,) index of a token among the candidates, or -1.
    """
    rounds = batch.state.shape[1]
    head = drafter.active_head[candidates]
    state, loss, weights = batch.state, torch.zeros(()), torch.zeros(())
    reach = torch.ones(batch.state.shape[:2])
    right = torch.ones(batch.state.shape[:2], dtype=torch.bool)
    accepted, tried = torch.zeros(steps), torch.zeros(steps)
    for step in range(1, steps + 1):
        said = batch.tokens[:, step : step + rounds]
        out, state = drafter.step(said, state, batch.positions, batch.kv, batch.mask)
        place = slice(step + 1, step + 1 + rounds)
        valid = batch.known[:, place]
        scores = F.log_softmax(out[valid] @ head.T, -1)
        where = lookup[batch.top_tokens[:, place][valid]]
        p = batch.top_logprobs[:, place][valid].exp() * (where >= 0)
        likelihood = scores.gather(1, where.clamp(min=0))
        each = -(p * likelihood).sum(-1) / p.sum(-1).clamp(min=1e-6)
        weight = reach[valid].clamp(min=_LEAST_REACH)
        loss = loss + (weight * each).sum()
        weights = weights + weight.sum()
        with torch.no_grad():
            actual = lookup[batch.tokens[:, place][valid]]
            own = torch.where(actual >= 0, scores.gather(1, actual.clamp(min=0)[:, None])[:, 0].exp(), 0.0)
            reach = reach.masked_scatter(valid, reach[valid] * own)
            # Greedy acceptance: the drafter's likeliest is the target's likeliest, and so were all before.
            hit = scores.argmax(-1) == where[:, 0]
            tried[step - 1] = (right & valid).sum()
            right = (right & valid).masked_scatter(valid, right[valid] & hit)
            accepted[step - 1] = right.sum()
    return Outcome(loss / weights.clamp(min=1), accepted, tried)
