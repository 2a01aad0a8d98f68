"""Times single target passes: for the planner's cost curve and for `outrider bench`."""

from __future__ import annotations

import time

import numpy as np

from outrider.backends import cpu
from outrider.cache import CachePool
from outrider.engine.target import Target, chain
from outrider.speculation.costs import CURVE_ROWS, VerifyCost

_CURVE_SECONDS = 0.8
"""Most time that measuring the cost curve takes at load."""
_TYPICAL_SLOPE = 0.08
"""Marginal row cost, relative to one row, where there was no time to measure."""


class Measure:
    """Times passes over arbitrary tokens; nothing of them stays in any request's cache."""

    def __init__(self, target: Target, caches: CachePool) -> None:
        self._target, self._caches = target, caches
        self._prepared: tuple[int, cpu.KvCache] | None = None  # the last context computed, and its cache

    def verify(self, rows: int, context: int, repeat: int) -> list[float]:
        """Seconds of `repeat` passes over `rows` rows, choices for all of them, after `context` tokens."""
        batch = chain(self.cache_of(context), self._tokens(rows), list(range(rows)))
        return [self._target.run([batch]).seconds for _ in range(repeat)]

    def prefill(self, tokens: int, repeat: int, chunk: int | None = None) -> list[float]:
        """Seconds to compute a prompt of `tokens` tokens up to its last token's choice, in passes of `chunk` rows."""
        taken = []
        for _ in range(repeat):
            started = time.perf_counter()
            self._computed(tokens, chunk or self._target.max_rows)
            taken.append(time.perf_counter() - started)
        return taken

    def cost_curve(self) -> VerifyCost:
        """Measures c(1), c(2), ... in under a second; points without time to measure lie on a typical slope."""
        rows: list[int] = []
        seconds: list[float] = []
        started = time.perf_counter()
        self.verify(1, 0, 1)  # touches the weights and the buffers for the first time
        for count in CURVE_ROWS:
            if rows and time.perf_counter() - started + 3 * seconds[-1] > _CURVE_SECONDS:
                break
            rows.append(count)
            seconds.append(max(min(self.verify(count, 0, 3)), seconds[-1] if seconds else 0.0))
        if rows[-1] < CURVE_ROWS[-1]:
            slope = max((seconds[-1] - seconds[0]) / max(rows[-1] - 1, 1), _TYPICAL_SLOPE * seconds[0])
            seconds.append(seconds[-1] + slope * (CURVE_ROWS[-1] - rows[-1]))
            rows.append(CURVE_ROWS[-1])
        self._prepared = None  # its pages
        return VerifyCost(rows, seconds)

    def cache_of(self, length: int) -> cpu.KvCache:
        """A cache that holds `length` tokens, computed once: passes that are not committed leave it unchanged."""
        if self._prepared is None or self._prepared[0] != length:
            self._prepared = (length, self._computed(length, self._target.max_rows))
        return self._prepared[1]

    def _computed(self, length: int, chunk: int) -> cpu.KvCache:
        cache = self._caches.new()
        while (rows := min(chunk, length - cache.length)) > 0:
            outputs = [rows - 1] if cache.length + rows == length else []
            self._target.run([chain(cache, self._tokens(rows), outputs)])
            cache.commit(np.arange(rows, dtype=np.int32))
        return cache

    def _tokens(self, count: int) -> list[int]:
        return [(7919 * i + 17) % self._target.vocabulary for i in range(count)]
