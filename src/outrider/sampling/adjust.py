"""Changes of logits before a token is chosen: biases, penalties, and tokens masked."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt

from outrider.arrays import Floats, Ints
from outrider.checkpoints.config import NONE_SUPPRESSED, Suppressed
from outrider.sampling.params import SamplingParams

Ids = npt.NDArray[np.int64]


class LogitAdjustments:
    """The changes of one request, which depend on its tokens so far.

    In this order: `logit_bias`, end tokens before `min_tokens`, `repetition_penalty` over prompt and answer,
    `presence_penalty` and `frequency_penalty` over the answer. Other tokens' logits are not touched.

    Args:
        end_tokens: those that would end this request.
        suppressed: by the checkpoint.
    """

    def __init__(
        self,
        params: SamplingParams,
        prompt: Sequence[int],
        end_tokens: Collection[int],
        suppressed: Suppressed = NONE_SUPPRESSED,
    ) -> None:
        self._params = params
        self.suppressed = frozenset(suppressed.always)
        self._never = np.array(suppressed.always, np.int64)
        self._not_first = np.array(suppressed.first, np.int64)
        self._biased = np.fromiter(params.logit_bias, np.int64, len(params.logit_bias))
        self._bias = np.fromiter(params.logit_bias.values(), np.float32, len(params.logit_bias))
        self._ends = np.fromiter(end_tokens if params.min_tokens else (), np.int64)
        self._penal = (params.repetition_penalty, params.presence_penalty, params.frequency_penalty) != (1.0, 0.0, 0.0)
        self._of_request = self._penal or len(self._biased) > 0 or len(self._ends) > 0
        self._length = 0  # tokens of the answer
        self._slots: dict[int, int] = {}  # token -> its index in the arrays below
        self._tokens = np.zeros(64, np.int64)
        self._counts = np.zeros(64, np.float32)  # in the answer; 0 for tokens that only the prompt has
        if self._penal:
            for token in prompt:
                self._slot(token)

    @property
    def needed(self) -> bool:
        """Whether the next token's logits change, once those of suppressed tokens are -infinity."""
        return self._of_request or (self._length == 0 and len(self._not_first) > 0)

    def suppress(self, logits: Floats, tokens: Ints | None = None) -> None:
        """Masks the tokens that the checkpoint suppresses; arguments as of `apply`."""
        for masked in (self._never, self._not_first if self._length == 0 else self._never[:0]):
            if len(masked):
                logits[_indices(masked, tokens)[0]] = -np.inf

    def push(self, token: int) -> None:
        """Appends a token to the answer."""
        self._length += 1
        if self._penal:
            slot = self._slot(token)  # may replace the array
            self._counts[slot] += 1

    @contextmanager
    def along(self, path: Sequence[int]) -> Iterator[None]:
        """Appends `path`, tokens that are proposed and not chosen, for the time of the context."""
        known = len(self._slots)
        for token in path:
            self.push(token)
        try:
            yield
        finally:
            self._length -= len(path)
            if self._penal:
                for token in path:
                    self._counts[self._slots[token]] -= 1
                while len(self._slots) > known:
                    self._slots.popitem()  # the newest, whose count is back at 0

    def apply(self, logits: Floats, tokens: Ints | None = None) -> None:
        """Changes logits of the next token in place.

        Args:
            logits: (candidates,) float32.
            tokens: (candidates,) int32, whose logits they are; None for the whole vocabulary.
        """
        if len(self._biased):
            at, which = _indices(self._biased, tokens)
            logits[at] += self._bias[which]
        if self._length < self._params.min_tokens:
            logits[_indices(self._ends, tokens)[0]] = -np.inf
        if self._penal:
            known = len(self._slots)
            at, which = _indices(self._tokens[:known], tokens)
            logits[at] = self._penalized(logits[at], self._counts[:known][which])

    def _penalized(self, logits: Floats, counts: Floats) -> Floats:
        p = self._params
        if p.repetition_penalty != 1.0:
            factor = np.float32(p.repetition_penalty)
            logits = np.where(logits > 0, logits / factor, logits * factor)
        once = np.float32(p.presence_penalty) * np.minimum(counts, np.float32(1))
        each = np.float32(p.frequency_penalty) * counts
        return (logits - once - each).astype(np.float32)

    def _slot(self, token: int) -> int:
        slot = self._slots.setdefault(token, len(self._slots))
        if slot == len(self._tokens):
            self._tokens = np.concatenate([self._tokens, np.zeros_like(self._tokens)])
            self._counts = np.concatenate([self._counts, np.zeros_like(self._counts)])
        self._tokens[slot] = token
        return slot


def _indices(wanted: Ids, tokens: Ints | None) -> tuple[Ids, Ids | slice]:
    """Indices of the logits of wanted tokens, and of the wanted tokens that they belong to."""
    if tokens is None:
        return wanted, slice(None)
    order = np.argsort(wanted)
    at = np.flatnonzero(np.isin(tokens, wanted))
    return at, order[np.searchsorted(wanted, tokens[at], sorter=order)]
