"""What a drafter is and what it is given: plain data in, nodes of a tree out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Protocol

from outrider.arrays import Floats, Ints
from outrider.backends.cpu import KvCache
from outrider.drafters.tree import Draft, Features
from outrider.sampling.choice import TokenChooser

HiddenRows = Literal["none", "last", "all"]
"""The rows whose hidden state a drafter needs: none, at least the last row of each pass that has an output, or every
row. The last has its price: each prompt row goes through the target's output head, and no prefix is reused."""


@dataclass(eq=False)
class SequenceState:
    """What drafting needs of one sequence.

    Attributes:
        number: names it among the running ones.
        tokens: prompt and answer so far, the sequence's own list: it grows.
        cache: keys and values of `tokens[:cache.length]`, as the target computed them.
        chooser: how the target will choose.
        limit: most tokens, prompt and answer together.
        draft: "auto", "off" or a fixed draft length.
        scope: a drafter may draw on other sequences of the same scope, and on no others; None: on none at all, and
            nothing of this sequence may outlive it.
    """

    number: int
    tokens: list[int]
    cache: KvCache
    chooser: TokenChooser
    limit: int
    draft: Literal["auto", "off"] | int = "auto"
    scope: str | None = None

    @property
    def room(self) -> int:
        """Tokens that may still be generated."""
        return self.limit - len(self.tokens)


@dataclass(frozen=True)
class CommittedRows:
    """Rows of one sequence that a pass committed, in order, prompt rows and accepted ones alike.

    Attributes:
        first: position of the first of them.
        tokens: (rows,) int32.
        hidden: (states, hidden_size) float32, the target's final hidden states of the last `states` rows; see
            `HiddenRows` for how many there are.
        taps: layer -> (rows, hidden_size) float32: the residual stream after each layer that some drafter taps.
    """

    first: int
    tokens: Ints
    hidden: Floats
    taps: Mapping[int, Floats] = field(default_factory=dict)


class Chances(Protocol):
    """What was learnt of one sequence's acceptance; see `speculation.calibration`."""

    def chance(self, source: str, features: Features, guess: float) -> float:
        """The chance that a token is accepted once its parent was; `guess` counts until something was learnt."""

    def observe(self, source: str, features: Features, expected: float, accepted: float) -> None:
        """Learns what became of a token that had the chance `expected`: 1 if it was accepted, 0 if not."""


@dataclass
class Ask:
    """A request for a draft: at most `budget` nodes on a path of `draft`, continuing the sequence's last token.

    Attributes:
        fixed: whether the draft length is fixed, so that what a node is worth does not matter.
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
        """Whether a step of `seconds` pays that proposes a token with this chance, its row in the pass included."""
        return chance > self.pace * (seconds + self.row_seconds)


class Drafter:
    """Proposes tokens.

    A drafter decides nothing: whatever it proposes, the tokens are the target's own. It may keep keys and values of its
    own, since every committed row is reported to it, prompt rows included. Rows that the prefix cache holds are not
    computed, so neither their hidden states nor their taps are reported: the first report begins behind them. A drafter
    that cannot do without sets `hidden = "all"`, which turns prefix reuse off. Its registry entry names the layers that
    it taps. Subclasses have `name` and `propose`, and what else they need.
    """

    name: ClassVar[str]
    """The source's name in drafts and statistics."""
    hidden: ClassVar[HiddenRows] = "none"

    def open(self, sequence: SequenceState) -> None:
        """Begins a sequence. `sequence.tokens` is its prompt; rows that the prefix cache holds are not reported."""

    def propose(self, asks: Sequence[Ask]) -> None:
        """Adds nodes to the draft of every ask."""
        raise NotImplementedError

    def observe(self, sequence: SequenceState, rows: CommittedRows) -> None:
        """Reports committed rows. The bonus token is none yet: it has no keys and values."""

    def prefetch(self) -> None:
        """Prefetches weights, after a pass that swept them from the processor's caches."""

    def close(self, sequence: SequenceState) -> None:
        """Forgets the sequence, which is complete."""
