"""The MTP drafter as a source of drafts.

A round starts from the target's final hidden state at the last position whose keys and values exist, and from the last
certain token. Each step proposes the next token of a chain; beside it, the runners-up of every step become branches.
The chains of all sequences take their steps together.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from outrider.backends import cpu
from outrider.drafters.lookup import Chance
from outrider.drafters.protocol import Ask, Floats
from outrider.drafters.tree import ROOT, Situation
from outrider.models.assistant import Drafting
from outrider.sampling.choice import Ints, TokenChooser

BRANCHES = 3
"""Tokens that each step proposes: the one that the chain goes on with, and the runners-up."""
_SMOOTHING = 0.1
_FIRST_EXPECTATION, _EXPECTATION_RATE = 0.6, 0.2
_PROBE_AFTER = 16
"""Rounds after which a drafter that was not worth asking is asked once more: the text may have changed."""
_SHARPENING = 0.4
"""How much further apart the logits of a drafter are put for a draw, the less often its draws came true of late. A
drafter in doubt spreads its probability: an unlikely token's mean probability, which it learnt, lies further above its
usual one than a likely token's, and in a race each such token has its chance. A drafter that is always right is left as
it is."""
_BUCKETS = 16  # of how likely the drafter thinks a guess


@dataclass
class _Sequence:
    """What a sequence's next round starts from."""

    tokens: list[int]
    cache: cpu.KvCache
    chooser: TokenChooser
    hidden: Floats | None = None
    # By depth, the chance that a step's first proposal had of late: what the next step there will bring.
    expected: list[float] = field(default_factory=list)
    idle: int = 0  # rounds in a row that did not begin

    def expects(self, depth: int) -> float:
        """The chance that a step at this depth is right, before it is made."""
        return self.expected[depth] if depth < len(self.expected) else _FIRST_EXPECTATION

    def learn(self, depth: int, chance: float) -> None:
        """A step was made, and its first proposal has this chance."""
        if depth == len(self.expected):
            self.expected.append(chance)
        self.expected[depth] += _EXPECTATION_RATE * (chance - self.expected[depth])


@dataclass
class _Chain:
    """One sequence's round in work: `end` is the node that the chain has reached, with the chance `reach`."""

    ask: Ask
    sequence: _Sequence
    end: int = ROOT
    reach: float = 1.0
    path: list[int] = field(default_factory=list)

    @property
    def last_token(self) -> int:
        return self.path[-1] if self.path else self.sequence.tokens[-1]


class MtpDrafter:
    """Proposes with a recorded drafter.

    Args:
        chance: see `lookup.Chance`.
        worth: asked before every step, with the chance that it brings a token and the seconds that it costs; False ends
            the sequence's round.
    """

    name = "mtp"

    def __init__(
        self, drafting: Drafting, vocabulary: int, chance: Chance, worth: Callable[[float, float], bool]
    ) -> None:
        self._drafting, self._chance, self._worth = drafting, chance, worth
        self._sequences: dict[int, _Sequence] = {}
        rows = drafting.program.max_rows
        self._logits = np.empty((rows, vocabulary), np.float32) if drafting.ordering is None else None
        self.seconds_per_step = 0.0

    def open(
        self,
        sequence: int,
        tokens: list[int],
        cache: cpu.KvCache,
        chooser: TokenChooser,
        scope: str | None,  # noqa: ARG002
    ) -> None:
        """See `Drafter.open`."""
        self._sequences[sequence] = _Sequence(tokens, cache, chooser)

    def propose(self, asks: Sequence[Ask]) -> None:
        """See `Drafter.propose`. The longest chain of an ask has `budget` tokens."""
        chains = [_Chain(ask, self._sequences[ask.sequence]) for ask in asks]
        chains = [chain for chain in chains if chain.sequence.hidden is not None]
        most = self._drafting.program.max_rows
        for first in range(0, len(chains), most):
            self._round(chains[first : first + most])

    def observe(self, sequence: int, hidden: Floats) -> None:
        """See `Drafter.observe`."""
        self._sequences[sequence].hidden = hidden

    def close(self, sequence: int) -> None:
        """See `Drafter.close`."""
        del self._sequences[sequence]

    def _round(self, chains: list[_Chain]) -> None:
        """Step after step, for as long as some chain is worth another."""
        hidden = np.array([chain.sequence.hidden for chain in chains], np.float32)
        program = self._drafting.program
        while chains:
            going = [i for i, chain in enumerate(chains) if self._goes_on(chain, len(chains))]
            if not going:
                return
            chains = [chains[i] for i in going]
            program.write(self._drafting.hidden, hidden[going])
            started = time.perf_counter()
            scores = self._step([(chain.last_token, chain.sequence.cache) for chain in chains])
            alive = [i for i, chain in enumerate(chains) if self._grow(chain, *scores[i])]
            self._learn_cost(time.perf_counter() - started)
            hidden = program.read(self._drafting.hidden, len(chains))[alive]
            chains = [chains[i] for i in alive]

    def _goes_on(self, chain: _Chain, company: int) -> bool:
        depth, sequence = len(chain.path), chain.sequence
        if depth >= chain.ask.budget:
            return False
        if chain.ask.pinned or self._worth(chain.reach * sequence.expects(depth), self.seconds_per_step / company):
            sequence.idle = 0
            return True
        if depth == 0:
            sequence.idle += 1
        return depth == 0 and sequence.idle % _PROBE_AFTER == 0

    def _step(self, rows: list[tuple[int, cpu.KvCache]]) -> list[tuple[Ints | None, Floats]]:
        """Runs one step for every (last token, cache): per row the candidate tokens (None: all) and their logits."""
        d, numbers = self._drafting, np.arange(len(rows), dtype=np.int32)
        tokens = np.array([token for token, _ in rows], np.int32)
        caches = [cache for _, cache in rows]
        nothing_before = np.full(len(rows), -1, np.int32)
        if d.logits is None or d.ordering is None:
            assert self._logits is not None
            d.program.run(tokens, numbers, nothing_before, numbers, caches, self._logits[: len(rows)])
            return [(None, row) for row in self._logits[: len(rows)]]
        d.program.run(tokens, numbers, nothing_before, numbers[:0], caches, None)
        candidates = d.ordering[d.program.chosen(len(rows), d.top_k)].reshape(len(rows), -1)
        logits = d.program.read(d.logits, len(rows) * d.top_k).reshape(len(rows), -1)
        return list(zip(candidates, logits, strict=True))

    def _grow(self, chain: _Chain, candidates: Ints | None, logits: Floats) -> bool:
        """Adds a step's proposals; False if there are none, as from a broken drafter."""
        chooser, draft, depth = chain.sequence.chooser, chain.ask.draft, len(chain.path)
        if chooser.draws:
            logits *= 1 + _SHARPENING * (1 - chain.sequence.expects(depth))
        position = len(chain.sequence.tokens) + depth
        guesses = chooser.guesses(logits, candidates, position, chain.path, BRANCHES)
        if not guesses:
            return False
        nodes = []
        for rank, (token, likely) in enumerate(guesses):
            kind = 2 * chooser.draws + (rank > 0)
            situation = _situation(kind, likely, depth)
            chance = self._chance(chain.ask.sequence, self.name, situation, likely)
            nodes.append(draft.add(chain.end, token, chance, self.name, situation))
        chain.end = nodes[0]
        chain.path.append(guesses[0][0])
        chance = draft.nodes[chain.end].probability
        chain.sequence.learn(depth, chance)
        chain.reach *= chance
        return True

    def _learn_cost(self, seconds: float) -> None:
        old = self.seconds_per_step
        self.seconds_per_step = seconds if old == 0.0 else old + _SMOOTHING * (min(seconds, 2 * old) - old)


def _situation(kind: int, likely: float, depth: int) -> Situation:
    """What the drafter's own word is worth is learnt for each bucket of it, and then by depth."""
    return (kind * _BUCKETS + min(int(likely * _BUCKETS), _BUCKETS - 1), min(depth, 3))
