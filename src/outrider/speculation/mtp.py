"""The MTP drafter as a source of drafts.

A round starts from the target's final hidden state at the last position whose keys and values exist, and from the last
certain token. Each step proposes the next token of a chain; beside it, the runners-up of every step become branches.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from outrider.kernels import KvCache, Sampler
from outrider.models.assistant import Drafting
from outrider.sampling.params import SamplingParams
from outrider.speculation.drafter import Floats
from outrider.speculation.tree import ROOT, Draft

BRANCHES = 3
"""Tokens that each step proposes: the one that the chain goes on with, and the runners-up."""
_SMOOTHING = 0.1


@dataclass
class _Round:
    """What a sequence's next round starts from."""

    tokens: list[int]
    cache: KvCache
    params: SamplingParams
    hidden: Floats | None = None


class MtpDrafter:
    """Proposes with a recorded drafter.

    Args:
        chance: the calibrated probability that a token is right, from the drafter's own probability for it.
        worth: asked before every further step, with the chance that it is reached; False ends the round.
    """

    name = "mtp"

    def __init__(
        self, drafting: Drafting, vocabulary: int, chance: Callable[[float], float], worth: Callable[[float], bool]
    ) -> None:
        self._drafting, self._chance, self._worth = drafting, chance, worth
        self._rounds: dict[int, _Round] = {}
        self._sampler = Sampler()
        self._logits = np.empty((1, vocabulary), np.float32) if drafting.logits is None else None
        self.seconds_per_token = 0.0

    def open(self, sequence: int, tokens: list[int], cache: KvCache, params: SamplingParams) -> None:
        """See `Drafter.open`."""
        self._rounds[sequence] = _Round(tokens, cache, params)

    def propose(self, sequence: int, draft: Draft, budget: int) -> None:
        """See `Drafter.propose`. The longest chain has `budget` tokens."""
        state = self._rounds[sequence]
        if state.hidden is None:
            return
        self._drafting.program.write(self._drafting.hidden, state.hidden[None])
        parent, token, reach = ROOT, state.tokens[-1], 1.0
        for depth in range(budget):
            if not self._worth(reach):
                break
            started = time.perf_counter()
            tokens, probabilities = self._step(token, state, len(state.tokens) + depth)
            self._learn_cost(time.perf_counter() - started)
            if not len(tokens):
                break
            nodes = [
                draft.add(parent, int(t), self._chance(float(p)), self.name)
                for t, p in zip(tokens, probabilities, strict=True)
            ]
            parent, token = nodes[0], int(tokens[0])
            reach *= draft.nodes[parent].probability

    def observe(self, sequence: int, hidden: Floats) -> None:
        """See `Drafter.observe`."""
        self._rounds[sequence].hidden = hidden

    def close(self, sequence: int) -> None:
        """See `Drafter.close`."""
        del self._rounds[sequence]

    def _step(self, token: int, state: _Round, position: int) -> tuple[npt.NDArray[np.int64], Floats]:
        """The likeliest next tokens, first the one to go on with, and their probabilities.

        With sampling, the first is drawn with the very noise that the target will use at that position.
        """
        candidates, logits = self._scores(token, state.cache)
        finite = np.isfinite(logits)
        if not finite.any():  # a broken drafter proposes nothing
            return candidates[:0], logits[:0]
        logits = np.where(finite, logits, np.float32(-np.inf))
        params = state.params
        weights = np.exp((logits - logits.max()) / (params.temperature or 1.0))
        probabilities = weights / weights.sum()
        best = np.argpartition(-logits, min(BRANCHES, len(logits) - 1))[:BRANCHES]
        best = best[np.lexsort((candidates[best], -logits[best]))]
        if not params.greedy:
            drawn = self._draw(candidates, logits, position, params)
            best = np.concatenate([[drawn], best[best != drawn][: BRANCHES - 1]])
        return candidates[best], probabilities[best]

    def _draw(self, candidates: npt.NDArray[np.int64], logits: Floats, position: int, params: SamplingParams) -> int:
        """Index of the candidate that keyed sampling picks."""
        everywhere = np.full(self._drafting.program.vocabulary, -np.inf, np.float32)
        everywhere[candidates] = logits
        p = params
        token = self._sampler.sample(everywhere, p.temperature, p.top_k, p.top_p, p.min_p, p.seed, position)
        return int(np.flatnonzero(candidates == token)[0]) if (candidates == token).any() else 0

    def _scores(self, token: int, cache: KvCache) -> tuple[npt.NDArray[np.int64], Floats]:
        """(candidates,) tokens and their logits after one more step; the hidden state moves on."""
        d, one = self._drafting, np.zeros(1, np.int32)
        if d.logits is None or d.ordering is None:
            assert self._logits is not None
            d.program.run(np.array([token], np.int32), one, one - 1, one, [cache], self._logits)
            return np.arange(self._logits.shape[1]), self._logits[0]
        d.program.run(np.array([token], np.int32), one, one - 1, one[:0], [cache], None)
        clusters = d.program.chosen(1, d.top_k)[0]
        return d.ordering[clusters].reshape(-1).astype(np.int64), d.program.read(d.logits, d.top_k).reshape(-1)

    def _learn_cost(self, seconds: float) -> None:
        old = self.seconds_per_token
        self.seconds_per_token = seconds if old == 0.0 else old + _SMOOTHING * (min(seconds, 2 * old) - old)
