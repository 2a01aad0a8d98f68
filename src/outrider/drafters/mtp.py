"""The MTP drafter as a source of drafts.

A round starts from the target's final hidden state of the last committed row and from the last certain token. Each step
proposes the next token of a chain; the runners-up of every step become branches. The chains of all sequences share the
steps.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import takewhile

import numpy as np

from outrider.arrays import Floats, Ints
from outrider.backends import cpu
from outrider.drafters.protocol import Ask, CommittedRows, Drafter, SequenceState
from outrider.drafters.tree import ROOT, Features
from outrider.models.assistant import Drafting

BRANCHES = 3
"""Tokens that each step proposes: the next of the chain, and the runners-up."""
_SMOOTHING = 0.1
_STEP, _FIRST_GUESS = "mtp step", 0.6
"""Source under which the chance of a step's first proposal is learnt, by depth, before the step runs."""
_SHARPENING = 0.4
"""How much a drafter's logits are sharpened for a Gumbel top-k, in proportion to its recent rejection rate. When
uncertain, it overestimates unlikely tokens (it learnt their mean probability), and any of the many may win the draw."""
_DEPTHS = 3  # the last with all that follow
_BUCKETS = 16  # of the drafter's own probability of a token


@dataclass
class _Chain:
    """One sequence's round: `end` is the node that the chain has reached, with the chance `reach`."""

    ask: Ask
    hidden: Floats
    end: int = ROOT
    reach: float = 1.0
    path: list[int] = field(default_factory=list)

    @property
    def expected(self) -> float:
        """The chance that the next step's first proposal is accepted, before the step runs."""
        return self.ask.chances.chance(_STEP, (min(len(self.path), _DEPTHS),), _FIRST_GUESS)

    @property
    def last_token(self) -> int:
        return self.path[-1] if self.path else self.ask.sequence.tokens[-1]


class MtpDrafter(Drafter):
    """Proposes with a recorded drafter that attends to the target's cache and has none of its own."""

    name = "mtp"
    hidden = "last"

    def __init__(self, drafting: Drafting, vocabulary: int) -> None:
        self._drafting = drafting
        self._hidden: dict[int, Floats] = {}  # of the last committed row, by sequence
        rows = drafting.program.max_rows
        self._logits = np.empty((rows, vocabulary), np.float32) if drafting.ordering is None else None
        self.seconds_per_step = 0.0

    def propose(self, asks: Sequence[Ask]) -> None:
        started = [(ask, self._hidden.get(ask.sequence.number)) for ask in asks]
        chains = [_Chain(ask, hidden) for ask, hidden in started if hidden is not None]
        most = self._drafting.program.max_rows
        for first in range(0, len(chains), most):
            self._round(chains[first : first + most])

    def observe(self, sequence: SequenceState, rows: CommittedRows) -> None:
        if len(rows.hidden):
            self._hidden[sequence.number] = rows.hidden[-1]

    def prefetch(self) -> None:
        self._drafting.program.prefetch_weights()

    def close(self, sequence: SequenceState) -> None:
        self._hidden.pop(sequence.number, None)

    def _round(self, chains: list[_Chain]) -> None:
        """Runs steps for as long as one pays for some chain."""
        hidden = np.array([chain.hidden for chain in chains], np.float32)
        program = self._drafting.program
        while chains:
            going = [i for i, chain in enumerate(chains) if self._goes_on(chain, len(chains))]
            if not going:
                return
            chains = [chains[i] for i in going]
            program.write(self._drafting.hidden, hidden[going])
            started = time.perf_counter()
            scores = self._step([(chain.last_token, chain.ask.sequence.cache) for chain in chains])
            alive = [i for i, chain in enumerate(chains) if self._grow(chain, *scores[i])]
            self._learn_cost(time.perf_counter() - started)
            hidden = program.read(self._drafting.hidden, len(chains))[alive]
            chains = [chains[i] for i in alive]

    def _goes_on(self, chain: _Chain, batch: int) -> bool:
        """Whether another step pays for the chain, if `batch` chains share its time."""
        ask, depth, seconds = chain.ask, len(chain.path), self.seconds_per_step / batch
        if depth >= ask.budget:
            return False
        if ask.fixed or (depth == 0 and self.name in ask.probe):
            return True
        gain = chain.reach * chain.expected
        others = (ask.draft.nodes[node].probability for node in ask.draft.trunk(chain.end))
        ahead = list(takewhile(lambda chance: chance > chain.expected, others))
        if not ahead:
            return ask.pays(gain, seconds)
        # Likelier tokens of other sources: a step gains where they are wrong, or leads to what follows them.
        behind = depth + len(ahead) < ask.budget and ask.pays(gain * math.prod(ahead), seconds * (1 + len(ahead)))
        return behind or ask.pays(gain * (1 - ahead[0]), seconds)

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
        """Adds a step's proposals; False if no logit is finite, as from a broken drafter."""
        guesses = self._guesses(chain, candidates, logits)
        if not guesses:
            return False
        ask, depth, draws = chain.ask, len(chain.path), chain.ask.sequence.chooser.draws
        expected, nodes = chain.expected, []
        for rank, (token, likely) in enumerate(guesses):
            features = _features(2 * draws + (rank > 0), likely)
            chance = ask.chances.chance(self.name, features, likely)
            nodes.append(ask.draft.add(chain.end, token, chance, self.name, features))
        ask.chances.observe(_STEP, (min(depth, _DEPTHS),), expected, ask.draft.nodes[nodes[0]].probability)
        found = ask.draft.likeliest_child(chain.end)
        assert found is not None
        chain.end = found
        chain.path.append(ask.draft.nodes[found].token)
        chain.reach *= ask.draft.nodes[found].probability
        return True

    def _guesses(self, chain: _Chain, candidates: Ints | None, logits: Floats) -> list[tuple[int, float]]:
        """The target's likely choices if these were its logits, with their probabilities."""
        sequence, depth = chain.ask.sequence, len(chain.path)
        if sequence.chooser.draws:
            logits *= 1 + _SHARPENING * (1 - chain.expected)
        return sequence.chooser.guesses(logits, candidates, len(sequence.tokens) + depth, chain.path, BRANCHES)

    def _learn_cost(self, seconds: float) -> None:
        old = self.seconds_per_step
        self.seconds_per_step = seconds if old == 0.0 else old + _SMOOTHING * (min(seconds, 2 * old) - old)


def _features(kind: int, likely: float) -> Features:
    """Acceptance is learnt for each bucket of the drafter's own probability."""
    return (kind * _BUCKETS + min(int(likely * _BUCKETS), _BUCKETS - 1),)
