"""The next token of one request, from logits."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from math import exp

import numpy as np

from outrider.arrays import Floats, Ints
from outrider.backends import cpu
from outrider.checkpoints.config import NONE_SUPPRESSED, Suppressed
from outrider.sampling.adjust import LogitAdjustments
from outrider.sampling.constraint import Constraint, PackedMask
from outrider.sampling.params import SamplingParams
from outrider.sampling.thoughts import ThoughtConstraint

_FIRST_FEW = 16
"""Tokens by descending logit that are checked before a grammar's mask is computed. With noise it is one: drawing more
costs as much as a mask."""


class TokenChooser:
    """Chooses by the request's parameters.

    The choice is a function of the logits, the parameters, the earlier tokens and the position alone. Whether the
    logits are of plain decoding or of a draft's row does not matter, nor how often `choose` is called.

    Args:
        prompt, end_tokens, suppressed: see `LogitAdjustments`.
        constraint: of the request's grammar and thinking budget, if it has any.
    """

    def __init__(
        self,
        params: SamplingParams,
        prompt: Sequence[int] = (),
        end_tokens: Collection[int] = (),
        constraint: Constraint | ThoughtConstraint | None = None,
        suppressed: Suppressed = NONE_SUPPRESSED,
    ) -> None:
        self._params, self._constraint = params, constraint
        self._adjustments = LogitAdjustments(params, prompt, end_tokens, suppressed)
        self._sampler = cpu.Sampler()

    @property
    def needs_logits(self) -> bool:
        """Whether the argmax alone does not suffice to choose."""
        return self._adjustments.needed or not self._params.greedy or self._constraint is not None

    @property
    def draws(self) -> bool:
        """Whether the choice depends on noise."""
        return not self._params.greedy and self._params.top_k != 1

    @property
    def complete(self) -> bool:
        """Whether the grammar is complete, so that no token follows."""
        return self._constraint is not None and self._constraint.complete

    @property
    def problem(self) -> str | None:
        """Why the grammar cannot continue, if it cannot."""
        return None if self._constraint is None else self._constraint.problem

    @property
    def suppressed(self) -> frozenset[int]:
        """Tokens that are never chosen."""
        return self._adjustments.suppressed

    def suppress(self, logits: Floats) -> None:
        """Masks tokens that the checkpoint suppresses: the model's log-probabilities at this position are without them.

        Args:
            logits: (vocabulary,) float32 of the next token, changed in place.
        """
        self._adjustments.suppress(logits)

    def choose(self, most_likely: int, logits: Floats | None, position: int) -> int | None:
        """The token at `position` (its index in the sequence); None if the grammar allows none.

        Args:
            most_likely: the argmax of the logits before softcap, ties to the lower id; no suppressed token.
            logits: (vocabulary,) float32 after `suppress`, changed in place; may be None unless `needs_logits`.
        """
        if not self.needs_logits:
            return most_likely
        assert logits is not None
        if self._constraint is not None:
            return self._choose_allowed(self._constraint, most_likely, logits, position)
        self._adjustments.apply(logits)
        return self._sample(logits, position)

    @property
    def constrained(self) -> bool:
        """Whether a grammar or a budget constrains the answer."""
        return self._constraint is not None

    def forced(self, path: Sequence[int]) -> bytes:
        """The bytes that the grammar demands after `path`; see `Constraint.forced`."""
        return b"" if self._constraint is None else self._constraint.forced(path)

    def possible(self, path: Sequence[int]) -> bool:
        """Whether the grammar allows the tokens of `path` next; see `Constraint.possible`."""
        return self._constraint is None or self._constraint.possible(path)

    def allowed(self, path: Sequence[int], tokens: Sequence[int]) -> list[int]:
        """Those of `tokens` that the grammar allows after `path`; see `Constraint.allowed`."""
        return list(tokens) if self._constraint is None else self._constraint.allowed(path, tokens)

    def packed(self, path: Sequence[int]) -> PackedMask | None:
        """The tokens that the grammar allows after `path`; see `Constraint.packed`."""
        return None if self._constraint is None else self._constraint.packed(path)

    def push(self, token: int) -> None:
        """Appends the chosen token."""
        self._adjustments.push(token)
        if self._constraint is not None:
            self._constraint.push(token)

    def guesses(
        self, logits: Floats, tokens: Ints | None, position: int, path: Sequence[int], count: int
    ) -> list[tuple[int, float]]:
        """The target's likely choices after `path`, given a drafter's logits: the best `count` of a Gumbel top-k.

        The first is the choice by the same rule and the same noise. The target's own logits will differ a little, so
        the runners-up of this very draw follow, not the likeliest tokens of the distribution.

        Args:
            logits: (candidates,) float32, changed in place.
            tokens: (candidates,) int32, whose logits they are; None for the whole vocabulary.
            path: tokens proposed after the last chosen one.
            count: most guesses; fewer if fewer have a finite logit.

        Returns:
            Tokens with, for greedy parameters, their probability; for sampled ones, their share of the weights, where a
            guess weighs e times less for each unit of logit that it lacks to the first.
        """
        with self._adjustments.along(path):
            self._adjustments.suppress(logits, tokens)
            self._adjustments.apply(logits, tokens)
        guesses = self._ranked(logits, tokens, position, count)
        found = [token for token, _ in guesses]
        if self._constraint is None or self._constraint.allowed(path, found) == found:
            return guesses
        allowed = self._constraint.after(path)
        if allowed is None:
            return guesses
        logits[~(allowed if tokens is None else allowed[tokens])] = -np.inf
        return self._ranked(logits, tokens, position, count)

    def _ranked(self, logits: Floats, tokens: Ints | None, position: int, count: int) -> list[tuple[int, float]]:
        """As `guesses`, of logits that are adjusted."""
        if self._params.greedy:
            return cpu.likeliest(logits, count, tokens)
        drawn = self._drawn(logits, position, count, tokens)
        best = drawn[0][1] if drawn else 0.0
        # The best is a case of its own: a broken drafter's logits may be infinite, and inf - inf is NaN.
        temperature = self._params.temperature
        weights = [exp((value - best) * temperature) if value < best else 1.0 for _, value in drawn]
        total = sum(weights)
        return [(token, weight / total) for (token, _), weight in zip(drawn, weights, strict=True)]

    def _choose_allowed(
        self, constraint: Constraint | ThoughtConstraint, most_likely: int, logits: Floats, position: int
    ) -> int | None:
        """As `choose`, among the tokens that the constraint allows.

        Without filters the choice is an argmax, so it is the first in descending order that is allowed. It is mostly
        one of the first few, and checking these costs far less than a mask.
        """
        plain = self._params.greedy and not self._adjustments.needed
        own = logits.copy() if self._adjustments.needed else None
        if not plain:
            self._adjustments.apply(logits)
        if plain and constraint.allows(most_likely):
            return most_likely
        if self._params.greedy or not self._params.filters:
            for token, _ in self._drawn(logits, position, _FIRST_FEW if self._params.greedy else 1):
                if constraint.allows(token):
                    return token
        allowed = constraint.mask()
        if constraint.problem is not None or not allowed.any():
            return None
        logits[~allowed] = -np.inf
        if logits.max() > -np.inf:
            return self._sample(logits, position)
        if own is None:  # all that fit are suppressed
            return None
        own[~allowed] = -np.inf  # biases against a grammar
        return int(own.argmax()) if own.max() > -np.inf else None

    def _sample(self, logits: Floats, position: int) -> int:
        p = self._params
        top_k = _bounded(p.top_k, logits)
        return self._sampler.sample(logits, p.temperature, top_k, p.top_p, p.min_p, p.typical_p, p.seed, position)

    def _drawn(self, logits: Floats, position: int, count: int, tokens: Ints | None = None) -> list[tuple[int, float]]:
        """The first `count` in descending order; `_sample` is the first of them. See `cpu.Sampler.gumbel_top_k`."""
        p = self._params
        filters = _bounded(p.top_k, logits), p.top_p, p.min_p, p.typical_p
        return self._sampler.gumbel_top_k(logits, p.temperature, *filters, p.seed, position, count, tokens)


def _bounded(top_k: int, logits: Floats) -> int:
    """At most the number of logits: the sampler's integers are smaller than Python's."""
    return min(top_k, len(logits))
