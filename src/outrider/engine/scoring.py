"""Log-probabilities of given text: for `LLM.score`, perplexity and tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

import numpy as np

from outrider.arrays import Floats
from outrider.cache import CachePool
from outrider.engine.driver import Driver
from outrider.engine.engine import Engine
from outrider.engine.target import chain
from outrider.sampling.logprobs import logprob_of

_ROWS = 64
"""Rows of one pass: 64 rows of 262,144 float32 logits are 67 MB."""


class Scorable(Protocol):
    """A loaded model."""

    driver: Driver
    engine: Engine
    caches: CachePool


def logits_of(model: Scorable, token_ids: Sequence[int], *, chunk: int | None = None) -> Floats:
    """(tokens, vocabulary) float32: the logits after each token of a text, in passes of at most `chunk` rows."""
    parts: list[Floats] = []
    _run(model, token_ids, chunk or model.engine.target.max_rows, lambda logits: parts.append(logits.copy()))
    return np.concatenate(parts)


def score(model: Scorable, token_ids: Sequence[int]) -> list[float]:
    """Natural log p(token[i] | tokens before i), for i from 1 on: the numbers of `SamplingParams.logprobs`."""
    following, scores = iter(token_ids[1:]), list[float]()

    def take(logits: Floats) -> None:
        scores.extend(logprob_of(row, next(following)) for row in logits)

    _run(model, token_ids[:-1], _ROWS, take)
    return scores


def _run(model: Scorable, token_ids: Sequence[int], rows: int, take: Callable[[Floats], None]) -> None:
    """Calls `take` with the logits of each pass over a text, (rows, vocabulary) float32, valid until it returns.

    The driver runs each pass between two of its own.
    """
    target, cache = model.engine.target, model.caches.new()

    def one_pass(tokens: Sequence[int]) -> None:
        with target.gate:
            (logits,) = target.run([chain(cache, tokens, list(range(len(tokens))))], logits=True).logits
            cache.commit(np.arange(len(tokens), dtype=np.int32))
            assert logits is not None
            take(logits)

    for begin in range(0, len(token_ids), rows):
        model.driver.call(partial(one_pass, token_ids[begin : begin + rows]))
