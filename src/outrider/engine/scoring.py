"""Log-probabilities of given text: for perplexity and for tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from outrider.backends import cpu
from outrider.cache import CachePool
from outrider.engine.target import Floats, Target, chain


class Loaded(Protocol):
    """What scoring needs of an `LLM`."""

    target: Target
    caches: CachePool


def logits_of(llm: Loaded, token_ids: Sequence[int], *, chunk: int | None = None) -> Floats:
    """(tokens, vocabulary) float32: the logits after each token of a text, in passes of at most `chunk` rows."""
    size = chunk or llm.target.max_rows
    cache, parts = llm.caches.new(), []
    for begin in range(0, len(token_ids), size):
        tokens = token_ids[begin : begin + size]
        with llm.target.gate:
            result = llm.target.run([chain(cache, tokens, list(range(len(tokens))))], logits=True)
            parts.append(np.array(result.logits[0]))
        cache.commit(np.arange(len(tokens), dtype=np.int32))
    return np.concatenate(parts)


def score(llm: Loaded, token_ids: Sequence[int]) -> Floats:
    """(tokens - 1,) float32: log p(token[i] | tokens before i), for i from 1 on."""
    size, scores = 64, []
    cache = llm.caches.new()
    for begin in range(0, len(token_ids) - 1, size):
        tokens = token_ids[begin : begin + size]
        with llm.target.gate:
            result = llm.target.run([chain(cache, tokens, list(range(len(tokens))))], logits=True)
            logits = np.array(result.logits[0])
        cache.commit(np.arange(len(tokens), dtype=np.int32))
        following = np.asarray(token_ids[begin + 1 : begin + 1 + len(tokens)])
        rows = logits[: len(following)]
        totals = np.array([cpu.log_total(row) for row in rows])
        scores.append(rows[np.arange(len(following)), following] - totals)
    return np.concatenate(scores).astype(np.float32)
