"""Batches of drafting rounds: from captured sequences to tensors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from outrider.arrays import Ints
from outrider.checkpoints.config import ModelConfig, last_kv_layers
from outrider.train.dataset import Dataset, Span
from outrider.train.model import FULL, SLIDING

_LOOP = 10
"""Tokens. A text loops where this many n-grams of this length in a row have occurred in it before."""
_KEPT_OF_LOOP = 24
"""Tokens of a loop that are kept: one repetition is worth learning too."""


@dataclass(frozen=True)
class Batch:
    """Rounds of several sequences, padded. Round j of a sequence starts at its position `first + j`.

    Attributes:
        tokens: (batch, rounds + steps + 1) from the first round's position on.
        state: (batch, rounds, backbone) the target's hidden states.
        positions: (batch, rounds).
        kv: see `Drafter.step`.
        mask: see `Drafter.step`.
        top_tokens: (batch, rounds + steps + 1, top) the likeliest tokens at the positions of `tokens`.
        top_logprobs: (batch, rounds + steps + 1, top) their log-probabilities.
        known: (batch, rounds + steps + 1) whether the data has a distribution for the position.
    """

    tokens: Tensor
    state: Tensor
    positions: Tensor
    kv: dict[str, tuple[Tensor, Tensor]]
    mask: dict[str, Tensor]
    top_tokens: Tensor
    top_logprobs: Tensor
    known: Tensor


class Batches:
    """Makes batches of a dataset's sequences for a number of steps."""

    def __init__(self, data: Dataset, target: ModelConfig, steps: int) -> None:
        self._data, self._steps = data, steps
        layers = last_kv_layers(target)
        self._layers = {SLIDING: target.layers[layers["sliding"]], FULL: target.layers[layers["full"]]}
        self._ends = {span.start: _end(data.fields["tokens"], span) for span in data.spans}

    def usable(self, spans: list[Span]) -> list[Span]:
        """Those with at least one round of all steps."""
        return [s for s in spans if self._ends[s.start] - s.prompt_length > self._steps + 1]

    def make(self, spans: list[Span]) -> Batch:
        """A batch of these sequences."""
        fields, extra = self._data.fields, self._steps + 1
        lengths = [self._ends[s.start] for s in spans]
        rounds = max(length - s.prompt_length for s, length in zip(spans, lengths, strict=True)) - 1
        longest, n = max(lengths), len(spans)
        tokens = np.zeros((n, rounds + extra), np.int64)
        state = np.zeros((n, rounds, self._data.shapes.hidden), np.float32)
        positions = np.zeros((n, rounds), np.int64)
        top_tokens = np.zeros((n, rounds + extra, self._data.shapes.top), np.int64)
        top_logprobs = np.full((n, rounds + extra, self._data.shapes.top), -100.0, np.float32)
        known = np.zeros((n, rounds + extra), bool)
        kv = {SLIDING: np.zeros((n, longest, self._data.shapes.sliding), np.float16)}
        kv[FULL] = np.zeros((n, longest, self._data.shapes.full), np.float16)
        for i, (span, length) in enumerate(zip(spans, lengths, strict=True)):
            first = span.prompt_length - 1
            count = length - first
            rows = slice(span.start + first, span.start + length)
            tokens[i, :count] = fields["tokens"][rows]
            stored = min(count - 1, rounds)
            state[i, :stored] = fields["hidden"][span.start + first : span.start + first + stored]
            positions[i] = first + 1 + np.arange(rounds)
            top_tokens[i, 1:count] = fields["top_tokens"][rows][1:]
            top_logprobs[i, 1:count] = fields["top_logprobs"][rows][1:]
            known[i, 1:count] = True
            for kind, name in ((SLIDING, "sliding"), (FULL, "full")):
                kv[kind][i, :length] = fields[name][span.start : span.start + length]
        return Batch(
            torch.from_numpy(tokens),
            torch.from_numpy(state),
            torch.from_numpy(positions),
            {kind: self._split(kind, values) for kind, values in kv.items()},
            {kind: self._mask(kind, positions, longest) for kind in kv},
            torch.from_numpy(top_tokens),
            torch.from_numpy(top_logprobs),
            torch.from_numpy(known),
        )

    def _split(self, kind: str, values: npt.NDArray[np.float16]) -> tuple[Tensor, Tensor]:
        layer = self._layers[kind]
        both = torch.from_numpy(values).float()
        both = both.view(*values.shape[:2], 2, layer.kv_heads, layer.head_dim)
        return both[:, :, 0].transpose(1, 2), both[:, :, 1].transpose(1, 2)

    def _mask(self, kind: str, positions: npt.NDArray[np.int64], longest: int) -> Tensor:
        """A round at position p attends to the keys before p; in a sliding layer, less than `window` before it."""
        own, keys = torch.from_numpy(positions)[:, None, :, None], torch.arange(longest)
        window = self._layers[kind].window
        seen = keys < own
        return seen & (keys > own - window) if window else seen


def _end(tokens: Ints, span: Span) -> int:
    """Length of a sequence up to soon after it starts to loop; its whole length if it does not."""
    text = tokens[span.start : span.start + span.length]
    seen: dict[bytes, int] = {}
    repeated = 0
    for end in range(span.prompt_length + _LOOP, span.length):
        piece = text[end - _LOOP : end].tobytes()
        repeated = repeated + 1 if piece in seen else 0
        seen.setdefault(piece, end)
        if repeated >= _LOOP:
            return min(end + _KEPT_OF_LOOP, span.length)
    return span.length
