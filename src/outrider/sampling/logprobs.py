"""Log-probabilities of the model itself, before anything that a request changes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from outrider import kernels

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class TokenLogprobs:
    """One place of an answer: the chosen token's natural log-probability, and the likeliest tokens' (token, log p),
    likeliest first."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...]


def log_total(logits: Floats) -> npt.NDArray[np.float64]:
    """log(sum(exp(logits))) along the last axis, what a logit lies above its log-probability by."""
    top = logits.max(axis=-1, keepdims=True)
    total = np.log(np.exp(logits - top).sum(axis=-1, dtype=np.float64))
    return np.asarray(total + top[..., 0], np.float64)


def logprobs_of(logits: Floats, token: int, count: int) -> TokenLogprobs:
    """Those of `token` and of the `count` likeliest.

    Args:
        logits: (vocabulary,) float32, as the model gave them.
    """
    total = float(log_total(logits))
    likeliest = kernels.likeliest(logits, 1.0, count) if count else []
    top = tuple((other, float(logits[other]) - total) for other, _ in likeliest)
    return TokenLogprobs(token, float(logits[token]) - total, top)
