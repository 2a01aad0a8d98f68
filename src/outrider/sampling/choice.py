"""The next token of one request, from logits."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import numpy.typing as npt

from outrider import kernels
from outrider.sampling.adjust import LogitAdjustments
from outrider.sampling.params import SamplingParams

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int32]


class TokenChooser:
    """Chooses as the request's parameters say.

    The choice is a function of the logits, the parameters, the tokens before and the position alone: it does not matter
    whether the logits come from plain decoding or from a row of a draft, nor how often it is asked.

    Args:
        prompt, end_tokens: see `LogitAdjustments`.
    """

    def __init__(self, params: SamplingParams, prompt: Sequence[int] = (), end_tokens: Collection[int] = ()) -> None:
        self._params = params
        self._adjustments = LogitAdjustments(params, prompt, end_tokens)
        self._sampler = kernels.Sampler()

    @property
    def needs_logits(self) -> bool:
        """Whether the most likely token is not enough to choose."""
        return self._adjustments.needed or not self._params.greedy

    @property
    def temperature(self) -> float:
        """What logits are divided by to make probabilities; 1 for greedy parameters, which need none."""
        return self._params.temperature or 1.0

    def choose(self, most_likely: int, logits: Floats | None, position: int) -> int:
        """The token at `position` (its index in the sequence).

        Args:
            most_likely: the argmax of the logits before softcap, ties to the lower id.
            logits: (vocabulary,) float32, changed in place; may be None unless `needs_logits`.
        """
        if not self.needs_logits:
            return most_likely
        assert logits is not None
        self._adjustments.apply(logits)
        return self._sample(logits, position, None)

    def push(self, token: int) -> None:
        """The token was chosen: the next choice comes after it."""
        self._adjustments.push(token)

    def guess(self, logits: Floats, tokens: Ints | None, position: int, path: Sequence[int]) -> int:
        """What the target would choose after `path` if these were its logits: the same rule, with the same noise.

        Args:
            logits: (candidates,) float32, changed in place.
            tokens: (candidates,) int32, whose logits they are; None for the whole vocabulary.
            path: tokens proposed after the last chosen one.
        """
        if self._adjustments.needed:
            with self._adjustments.along(path):
                self._adjustments.apply(logits, tokens)
        return self._sample(logits, position, tokens)

    def _sample(self, logits: Floats, position: int, tokens: Ints | None) -> int:
        p = self._params
        return self._sampler.sample(
            logits, p.temperature, p.top_k, p.top_p, p.min_p, p.typical_p, p.seed, position, tokens
        )
