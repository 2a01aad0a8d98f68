"""Log-probabilities of given text: for `LLM.score`, perplexity and tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar

import numpy as np

from outrider.arrays import Floats
from outrider.cache import CachePool
from outrider.engine.engine import Engine
from outrider.engine.target import chain
from outrider.errors import OutriderError
from outrider.sampling.logprobs import TokenLogprobs, logprob_of, logprobs_of

_ROWS = 64
"""Rows of one pass: 64 rows of 262,144 float32 logits are 67 MB."""


Result = TypeVar("Result")


class BetweenPasses(Protocol):
    """The thread that runs the engine."""

    def call(self, work: Callable[[], Result]) -> Result:
        """What `work` returns, or raises, which the thread runs between two passes."""


class Scorable(Protocol):
    """A loaded model."""

    @property
    def driver(self) -> BetweenPasses:
        """The thread that runs its engine."""

    @property
    def engine(self) -> Engine:
        """Its engine."""

    @property
    def caches(self) -> CachePool:
        """Its caches."""


@dataclass(frozen=True)
class ScoredToken:
    """A token of a given text, and its rank among all tokens in its position; 1 is the most likely."""

    logprobs: TokenLogprobs
    rank: int


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


def score_tokens(
    model: Scorable, token_ids: Sequence[int], count: int, salt: str | None, cancelled: Callable[[], bool]
) -> list[ScoredToken]:
    """As `score`, with the `count` most likely tokens in each position.

    Args:
        salt: keep the keys and values in the prefix cache of this salt; None for not at all.
        cancelled: asked before each pass.

    Raises:
        OutriderError: it was cancelled.
    """
    following, found = iter(token_ids[1:]), list[ScoredToken]()

    def take(logits: Floats) -> None:
        for row in logits:
            token = next(following)
            found.append(ScoredToken(logprobs_of(row, token, count), 1 + int((row > row[token]).sum())))

    _run(model, token_ids[:-1], _ROWS, take, salt, cancelled)
    return found


def _run(
    model: Scorable,
    token_ids: Sequence[int],
    rows: int,
    take: Callable[[Floats], None],
    salt: str | None = None,
    cancelled: Callable[[], bool] = lambda: False,
) -> None:
    """Calls `take` with the logits of each pass over a text, (rows, vocabulary) float32, valid until it returns.

    The driver runs each pass between two of its own.
    """
    target, call = model.engine.target, model.driver.call
    sequence = call(partial(model.caches.open, list(token_ids), reuse=False, salt=salt or ""))
    cache, keep = sequence.cache, False

    def one_pass(tokens: Sequence[int]) -> None:
        with target.gate:
            (logits,) = target.run([chain(cache, tokens, list(range(len(tokens))))], logits=True).logits
            cache.commit(np.arange(len(tokens), dtype=np.int32))
            assert logits is not None
            take(logits)

    try:
        for begin in range(0, len(token_ids), rows):
            if cancelled():
                raise OutriderError("the scoring was cancelled")
            call(partial(one_pass, token_ids[begin : begin + rows]))
        keep = salt is not None
    finally:
        call(partial(model.caches.close, sequence, keep=keep))
