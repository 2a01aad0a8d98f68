"""The next token of one request, from the target's logits."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from outrider import kernels
from outrider.sampling.params import SamplingParams


class TokenChooser:
    """Chooses as the request's parameters say.

    The choice is a function of the logits, the parameters and the position alone: it does not matter whether the
    logits come from plain decoding or from a row of a draft, nor how often it is asked.
    """

    def __init__(self, params: SamplingParams) -> None:
        self._params = params
        self._sampler = kernels.Sampler()

    def choose(self, most_likely: int, logits: npt.NDArray[np.float32] | None, position: int) -> int:
        """The token at `position` (its index in the sequence).

        Args:
            most_likely: the argmax of the logits before softcap, ties to the lower id.
            logits: (vocabulary,) float32; may be None for greedy parameters.
        """
        p = self._params
        if p.greedy:
            return most_likely
        assert logits is not None
        return self._sampler.sample(logits, p.temperature, p.top_k, p.top_p, p.min_p, p.seed, position)
