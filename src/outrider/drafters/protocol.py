"""The drafter protocol: plain data in, nodes of a tree out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Protocol

from outrider.arrays import Bytes, Floats, Ints
from outrider.backends.cpu import KvCache
from outrider.drafters.tree import Draft, Features
from outrider.sampling.choice import TokenChooser

HiddenRows = Literal["none", "last", "all"]
"""The rows whose final hidden state a drafter requires: none, the last row of each pass that has an output, or every
row. "all" costs the output head for every prompt row, and turns prefix reuse off unless the drafter keeps a state."""


@dataclass(eq=False)
class SequenceState:
    """What drafting needs of one sequence.

    Attributes:
        number: identifies it among the running ones.
        tokens: prompt and answer so far, the sequence's own list: it grows.
        cache: the target's keys and values of `tokens[:cache.length]`.
        chooser: how the target will choose.
        limit: most tokens, prompt and answer together.
        draft: "auto", "off" or a fixed draft length.
        lora: the adapter that the target computes it with; None for none.
        scope: a drafter may use other sequences of the same scope and no others. None: it may use none, and must drop
            all of this sequence at its end.
        prediction: tokens that the answer will mostly repeat, as the client expects; empty for none.
    """

    number: int
    tokens: list[int]
    cache: KvCache
    chooser: TokenChooser
    limit: int
    draft: Literal["auto", "off"] | int = "auto"
    lora: str | None = None
    scope: Hashable | None = None
    prediction: Sequence[int] = ()

    @property
    def room(self) -> int:
        """Tokens that may still be generated."""
        return self.limit - len(self.tokens)


@dataclass(frozen=True)
class CommittedRows:
    """Rows of one sequence that a pass committed, in order, prompt rows and accepted ones alike.

    Rows from the prefix cache are not computed, so neither their hidden states nor their taps are reported.

    Attributes:
        first: position of the first of them.
        tokens: (rows,) int32; of a row that carries an embedding, the placeholder.
        hidden: (states, hidden_size) float32, the target's final hidden states of the last `states` rows; see
            `HiddenRows` for how many there are.
        taps: layer -> (rows, hidden_size) float32: the residual stream after each layer that some drafter taps.
    """

    first: int
    tokens: Ints
    hidden: Floats
    taps: Mapping[int, Floats] = field(default_factory=dict)


class Chances(Protocol):
    """Acceptance learnt for one sequence; see `speculation.calibration`."""

    def chance(self, source: str, features: Features, guess: float) -> float:
        """The chance that a token is accepted once its parent was; `guess` is the estimate before any verdict."""

    def observe(self, source: str, features: Features, expected: float, accepted: float) -> None:
        """Counts a token that had the chance `expected`: 1 if it was accepted, 0 if not."""


@dataclass
class Ask:
    """A request for a draft: at most `budget` nodes on a path of `draft`, continuing the sequence's last token.

    Attributes:
        fixed: whether the draft length is fixed, so that the value of a node does not matter.
        probe: drafters that must propose a token although it may not pay.
        pace: tokens per second that time is worth.
        row_seconds: the marginal row cost of the pass.
    """

    sequence: SequenceState
    budget: int
    chances: Chances
    fixed: bool = False
    probe: frozenset[str] = frozenset()
    pace: float = 0.0
    row_seconds: float = 0.0
    draft: Draft = field(default_factory=Draft)

    def pays(self, chance: float, seconds: float) -> bool:
        """Whether a drafting step of `seconds` pays that proposes a token with this chance, its row included."""
        return chance > self.pace * (seconds + self.row_seconds)


class Drafter(ABC):
    """Proposes tokens; the target alone chooses.

    Every committed row is reported, prompt rows included, so a drafter may keep keys and values of its own. Its first
    report begins after the rows from the prefix cache. What it keeps of those it gets back if its registry entry has
    `state_bytes`: the pages of the prefix cache then have room for it. One that requires every row and has none sets
    `hidden = "all"`, which turns prefix reuse off. The registry entry names the layers that it taps. Subclasses define
    `name` and `propose`, and override what else they need.
    """

    name: ClassVar[str]
    """The source in drafts and statistics."""
    hidden: ClassVar[HiddenRows] = "none"

    def open(self, sequence: SequenceState) -> None:
        """Begins a sequence. `sequence.tokens` is its prompt."""

    @abstractmethod
    def propose(self, asks: Sequence[Ask]) -> None:
        """Adds nodes to the draft of every ask."""

    def observe(self, sequence: SequenceState, rows: CommittedRows) -> None:
        """Reports committed rows. The bonus token is not among them: it has no keys and values yet."""

    def state(self, sequence: SequenceState, page: int) -> Bytes | None:  # noqa: ARG002
        """What it keeps of the committed positions of a page, from `page * cpu.PAGE_POSITIONS` on.

        Asked for when the page is full, and earlier when another sequence or the end needs what is there; after
        `observe` of all committed rows. Others read it while this sequence runs, memory is shared, and it may outlive
        the process: it depends on the rows and those before them alone.

        Returns:
            (cpu.PAGE_POSITIONS * state_bytes,) uint8 that never change again: of a page that is not full a copy, with
            zeros behind. None if it lacks some of them.
        """
        return None

    def resume(self, sequence: SequenceState, length: int, states: Sequence[Bytes | None]) -> None:
        """The sequence begins with `length` positions from the prefix cache, which will not be reported.

        Args:
            states: of each page that holds them, what `state` returned for a sequence that begins alike, read-only; of
                the last one, positions from `length` on may be another text's. None where nothing was kept: drafts may
                be worse for it, and no token is another.
        """

    def prefetch(self) -> None:
        """Prefetches weights, after a pass that evicted them from the processor's caches."""

    def close(self, sequence: SequenceState) -> None:
        """Drops the sequence, which is complete."""
