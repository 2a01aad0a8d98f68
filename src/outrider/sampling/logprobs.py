"""Log-probabilities of the model itself, before anything that a request changes."""

from __future__ import annotations

from dataclasses import dataclass

from outrider.arrays import Floats
from outrider.backends import cpu


@dataclass(frozen=True)
class TokenLogprobs:
    """One place of an answer: the chosen token's natural log-probability, and the likeliest tokens' (token, log p),
    likeliest first."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...]


def logprobs_of(logits: Floats, token: int, count: int) -> TokenLogprobs:
    """Those of `token` and of the `count` likeliest.

    Args:
        logits: (vocabulary,) float32, as the model gave them.
    """
    total = cpu.logsumexp(logits)
    likeliest = cpu.likeliest(logits, count) if count else []
    top = tuple((other, float(logits[other]) - total) for other, _ in likeliest)
    return TokenLogprobs(token, float(logits[token]) - total, top)


def logprob_of(logits: Floats, token: int) -> float:
    """That of `token` alone: the same number as in `logprobs_of`."""
    return float(logits[token]) - cpu.logsumexp(logits)
