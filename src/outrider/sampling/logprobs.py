"""Log-probabilities of the model, before biases, penalties, temperature and filters."""

from __future__ import annotations

from dataclasses import dataclass

from outrider.arrays import Floats
from outrider.backends import cpu


@dataclass(frozen=True)
class TokenLogprobs:
    """One position of an answer: the chosen token's natural log-probability; (token, log p) of the likeliest tokens, in
    descending order."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...]


def logprobs_of(logits: Floats, token: int, count: int) -> TokenLogprobs:
    """Those of `token` and of the `count` likeliest.

    Args:
        logits: (vocabulary,) float32, the model's.
    """
    total = cpu.logsumexp(logits)
    likeliest = cpu.likeliest(logits, count) if count else []
    top = tuple((other, float(logits[other]) - total) for other, _ in likeliest)
    return TokenLogprobs(token, float(logits[token]) - total, top)


def logprob_of(logits: Floats, token: int) -> float:
    """That of `token` alone: the same number as in `logprobs_of`."""
    return float(logits[token]) - cpu.logsumexp(logits)
