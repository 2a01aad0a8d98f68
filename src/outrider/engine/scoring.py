"""Log-probabilities of given text: for `LLM.score`, perplexity and tests."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np

from outrider.arrays import Floats
from outrider.cache import CachePool
from outrider.engine.engine import Engine
from outrider.engine.target import chain
from outrider.errors import OutriderError
from outrider.sampling.logprobs import TokenLogprobs, logprob_of, logprobs_of
from outrider.sampling.params import SamplingParams, Scope

_ROWS = 64
"""Rows of one pass: 64 rows of 262,144 float32 logits are 67 MB."""


Result = TypeVar("Result")


class BetweenPasses(Protocol):
    """The thread that runs the engine."""

    def run(self, work: Generator[None, None, Result]) -> Result:
        """What `work` returns, or raises; the thread runs it, up to its next `yield` between two passes."""


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


def logits_of(
    model: Scorable, token_ids: Sequence[int], *, chunk: int | None = None, lora: str | None = None
) -> Floats:
    """(tokens, vocabulary) float32: the logits after each token of a text, in passes of at most `chunk` rows."""
    parts: list[Floats] = []
    _run(model, token_ids, chunk or model.engine.target.max_rows, lambda logits: parts.append(logits.copy()), lora)
    return np.concatenate(parts)


def score(model: Scorable, token_ids: Sequence[int], lora: str | None = None) -> list[float]:
    """Natural log p(token[i] | tokens before i), for i from 1 on: the numbers of `SamplingParams.logprobs`."""
    following, scores = iter(token_ids[1:]), list[float]()

    def take(logits: Floats) -> None:
        scores.extend(logprob_of(row, next(following)) for row in logits)

    _run(model, token_ids[:-1], _ROWS, take, lora)
    return scores


def score_tokens(
    model: Scorable, token_ids: Sequence[int], count: int, params: SamplingParams, cancelled: Callable[[], bool]
) -> list[ScoredToken]:
    """As `score`, with the `count` most likely tokens in each position.

    Args:
        params: their adapter, and their scope, in whose prefix cache the keys and values are kept.
        cancelled: asked before each pass.

    Raises:
        OutriderError: it was cancelled.
    """
    following, found = iter(token_ids[1:]), list[ScoredToken]()

    def take(logits: Floats) -> None:
        for row in logits:
            token = next(following)
            found.append(ScoredToken(logprobs_of(row, token, count), 1 + int((row > row[token]).sum())))

    _run(model, token_ids[:-1], _ROWS, take, params.lora, params.scope, cancelled)
    return found


def _run(
    model: Scorable,
    token_ids: Sequence[int],
    rows: int,
    take: Callable[[Floats], None],
    lora: str | None,
    scope: Scope | None = None,
    cancelled: Callable[[], bool] = lambda: False,
) -> None:
    """Calls `take` with the logits of each pass over a text, (rows, vocabulary) float32, valid until it returns.

    All of it is the driver's: an interrupt of the caller ends it before its next pass, and loses nothing.
    """
    interrupted = False

    def passes() -> Generator[None, None, None]:
        target = model.engine.target
        sequence = model.caches.open(
            list(token_ids), limit=len(token_ids), salt=scope, reuse=False, keep=scope is not None
        )
        begin, failed = 0, True
        try:
            while begin < len(token_ids):
                yield
                if interrupted or cancelled():
                    raise OutriderError("the scoring was cancelled")
                model.caches.admit()
                if not sequence.runs:
                    continue
                tokens = token_ids[begin : begin + rows]
                model.caches.make_room([(sequence, len(tokens))])
                with target.gate:
                    outputs = list(range(len(tokens)))
                    (logits,) = target.run([chain(sequence.cache, tokens, outputs, lora)], logits=True).logits
                    sequence.cache.commit(np.arange(len(tokens), dtype=np.int32))
                    assert logits is not None
                    take(logits)
                model.caches.committed(sequence)
                begin += len(tokens)
            failed = False
        finally:
            model.caches.close(sequence, failed=failed)

    try:
        model.driver.run(passes())
    except BaseException:
        interrupted = True
        raise
