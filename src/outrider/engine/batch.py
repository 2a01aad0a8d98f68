"""The rows of one pass, request by request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from outrider.arrays import Floats, Ints
from outrider.drafters.protocol import CommittedRows
from outrider.drafters.tree import Draft
from outrider.engine.media import embeddings_within
from outrider.engine.request import Request
from outrider.engine.target import PassResult, Rows
from outrider.speculation.walk import Verdict


@dataclass(eq=False)
class Slot:
    """The part of one request in a pass.

    Attributes:
        rows: tokens without keys and values, then the nodes of `draft`.
        last: the row of the last of these tokens, which the draft hangs from.
        chooses: whether the target chooses a token after row `last`; False for a prompt chunk that others follow.
        choices, logits, hidden: of the rows that have an output, once the pass has run; see `PassResult`.
        taps: of every row, by layer; see `Target.taps`.
        verdict, committed: what was accepted, and the rows that this committed.
    """

    request: Request
    rows: Rows
    last: int
    chooses: bool
    draft: Draft = field(default_factory=Draft)
    choices: Ints | None = None
    logits: Floats | None = None
    hidden: Floats | None = None
    taps: dict[int, Floats] = field(default_factory=dict)
    verdict: Verdict | None = None
    committed: CommittedRows | None = None

    def attach(self, draft: Draft) -> None:
        """Adds a draft's rows; each has an output."""
        self.draft = draft
        self.rows.tokens += [node.token for node in draft]
        self.rows.parents += [self.last + 1 + node.parent for node in draft]  # ROOT is -1: the last certain row
        self.rows.outputs += range(self.last + 1, len(self.rows.tokens))

    def walkable(self) -> tuple[Ints, Floats | None]:
        """Choices and logits of row `last` and of each node."""
        assert self.choices is not None
        lead = self.last - self.rows.outputs[0]
        return self.choices[lead:], None if self.logits is None else self.logits[lead:]

    def commit(self) -> None:
        """Makes the certain rows and the accepted ones part of the cache."""
        accepted = self.verdict.accepted if self.verdict else []
        kept = np.array([*range(self.last + 1), *(self.last + 1 + node for node in accepted)], np.int32)
        cache, first = self.rows.cache, self.rows.cache.length
        cache.commit(kept)
        tokens = np.array(self.request.tokens[first : cache.length], np.int32)
        outputs = self.rows.outputs
        hidden = np.empty((0, 0), np.float32)
        if self.hidden is not None and outputs:
            hidden = self.hidden[kept[kept >= outputs[0]] - outputs[0]]
        self.committed = CommittedRows(first, tokens, hidden, {layer: taps[kept] for layer, taps in self.taps.items()})


def certain_rows(request: Request, most: int, *, every_output: bool) -> Slot:
    """The tokens without keys and values, at most `most`; the last has an output if no more are left.

    Args:
        every_output: whether all of them have one.
    """
    cache, tokens = request.sequence.cache, request.tokens
    fresh = tokens[cache.length : cache.length + most]
    last = len(fresh) - 1
    chooses = cache.length + len(fresh) == len(tokens)
    outputs = list(range(len(fresh))) if every_output else [last] if chooses else []
    embeddings = embeddings_within(request.media, cache.length, cache.length + len(fresh))
    rows = Rows(cache, fresh, list(range(-1, last)), outputs, embeddings, request.params.lora)
    return Slot(request, rows, last, chooses)


@dataclass(eq=False)
class Batch:
    """The slots of a pass: requests that decode, then prompts."""

    decoding: list[Slot]
    prompts: list[Slot]
    draft_seconds: float = 0.0

    @property
    def slots(self) -> list[Slot]:
        """Those of requests that have not failed."""
        return [slot for slot in [*self.decoding, *self.prompts] if not slot.request.ended]


@dataclass(eq=False)
class VerifiedPass:
    """A pass that has run. `rows` and `seconds` are those of all its slots."""

    slots: list[Slot]
    rows: int
    seconds: float


def count_rows(slots: Sequence[Slot]) -> int:
    """Rows of these slots, drafts included."""
    return sum(len(slot.rows.tokens) for slot in slots)


def hand_out(slots: Sequence[Slot], result: PassResult, hidden: Floats | None, taps: Mapping[int, Floats]) -> None:
    """Gives each slot its part of a pass's outputs.

    Args:
        hidden: (outputs, hidden_size) float32; None if not required.
        taps: layer -> (rows, hidden_size) float32.
    """
    first = row = 0
    for slot, choices, logits in zip(slots, result.choices, result.logits, strict=True):
        slot.choices, slot.logits = choices, logits
        end = first + len(slot.rows.outputs)
        slot.hidden = None if hidden is None else hidden[first:end]
        slot.taps = {layer: states[row : row + len(slot.rows.tokens)] for layer, states in taps.items()}
        first, row = end, row + len(slot.rows.tokens)
