"""Decides what to draft for a request, and learns from what became of it."""

from __future__ import annotations

from dataclasses import dataclass, field

from outrider.engine.request import Request
from outrider.engine.target import Floats
from outrider.models.assistant import Drafting
from outrider.speculation.controller import Calibration, VerifyCost, best_nodes
from outrider.speculation.drafter import Drafter
from outrider.speculation.lookup import LookupDrafter
from outrider.speculation.mtp import MtpDrafter
from outrider.speculation.tree import ROOT, Draft
from outrider.speculation.verify import Verdict

MOST_ROWS = 16
"""Rows that one sweep over the weights serves; a draft never asks for more by itself."""
_FIRST_PROBE, _LAST_PROBE = 8, 64
_PRIORS = {"lookup": 0.6, "mtp": 0.5}
_BUCKETS = 16  # of a drafter's own probability, for its calibration


@dataclass
class _State:
    idle: int = 0  # steps since the controller last let anything be drafted
    probe_after: int = _FIRST_PROBE
    # By (source, chance): the situation that the last draft's nodes were proposed in. Each request has its own, since
    # all of a pass propose before any of them learns.
    situations: dict[tuple[str, float], int] = field(default_factory=dict)


class DraftPlanner:
    """Lets every source grow one tree and keeps what is worth verifying.

    Args:
        cost: seconds of a pass by rows.
        lookup: whether lookup may propose.
        drafting: the recorded MTP drafter, if there is one.
        vocabulary: of the target.
    """

    def __init__(
        self, cost: VerifyCost, *, lookup: bool = True, drafting: Drafting | None = None, vocabulary: int = 0
    ) -> None:
        self.cost = cost
        self.calibration = Calibration(dict(_PRIORS))
        self._mtp = MtpDrafter(drafting, vocabulary, self._mtp_chance, self._worth_a_step) if drafting else None
        self._lookup = LookupDrafter(self._lookup_chance) if lookup else None
        # The drafter comes first: where both propose the same token, it keeps the credit.
        self._drafters: list[Drafter] = [d for d in (self._mtp, self._lookup) if d is not None]
        self._states: dict[int, _State] = {}
        self._proposing = _State()
        self._pinned = False

    @property
    def wants_hidden(self) -> bool:
        """Whether `observe` has to be told hidden states."""
        return self._mtp is not None

    def open(self, request: Request) -> None:
        """Begins a request."""
        self._states[request.number] = _State()
        for drafter in self._drafters:
            drafter.open(request.number, request.tokens, request.sequence.cache, request.params)

    def close(self, request: Request) -> None:
        """Ends a request."""
        if self._states.pop(request.number, None) is not None:
            for drafter in self._drafters:
                drafter.close(request.number)

    def propose(self, request: Request) -> Draft:
        """The draft that the next pass verifies; empty where drafting does not pay."""
        setting = request.params.draft
        longest = min(request.room - 1, MOST_ROWS - 1 if setting == "auto" else 0 if setting == "off" else setting)
        draft = Draft()
        if longest <= 0:
            return draft
        state = self._states[request.number]
        state.situations.clear()
        self._proposing = state
        self._pinned = setting != "auto"
        for drafter in self._drafters:
            drafter.propose(request.number, draft, longest)
        if setting == "auto":
            return self._worthwhile(draft, state)
        # A pinned draft has that many tokens: the likeliest of the tree.
        chances = draft.path_probabilities()
        order = sorted(range(len(draft)), key=lambda i: (-chances[i], i))
        return draft.keep(order[:longest])

    def observe(self, request: Request, hidden: Floats) -> None:
        """Tells the drafters the hidden state that the next round starts from."""
        for drafter in self._drafters:
            drafter.observe(request.number, hidden)

    def learn(self, request: Request, draft: Draft, verdict: Verdict) -> None:
        """Books which nodes were right. A node counts only if the target was asked for its place."""
        stats = request.stats
        accepted = set(verdict.accepted)
        # Where the walk asked: at the root and at each accepted node, unless the request ended there.
        asked = [ROOT, *verdict.accepted][: len(verdict.tokens)]
        for index, node in enumerate(draft):
            right = index in accepted
            _count(stats.drafted_by_depth, node.depth, 1)
            _count(stats.accepted_by_depth, node.depth, int(right))
            stats.drafted_by_source[node.source] = stats.drafted_by_source.get(node.source, 0) + 1
            stats.accepted_by_source[node.source] = stats.accepted_by_source.get(node.source, 0) + right
            if node.parent in asked:
                situation = self._states[request.number].situations.get((node.source, node.probability), 0)
                self.calibration.observe(node.source, situation, 1, int(right))

    def _lookup_chance(self, match_length: int) -> float:
        return self._remembered("lookup", situation_of(match_length))

    def _mtp_chance(self, probability: float) -> float:
        return self._remembered("mtp", min(int(probability * _BUCKETS), _BUCKETS - 1))

    def _remembered(self, source: str, situation: int) -> float:
        """The chance of a situation; which one a node was in is found again by that number when it is judged."""
        chance = self.calibration.chance(source, situation)
        self._proposing.situations[source, chance] = situation
        return chance

    def _worth_a_step(self, reach: float) -> bool:
        """Whether one more step of the drafter pays: what it may bring, in seconds of plain decoding saved, against
        its own time and that of one more row."""
        if self._pinned:
            return True
        assert self._mtp is not None
        row = (self.cost(MOST_ROWS // 2) - self.cost(1)) / (MOST_ROWS // 2 - 1)
        return reach * 0.9 * self.cost(1) > self._mtp.seconds_per_token + row

    def _worthwhile(self, draft: Draft, state: _State) -> Draft:
        chosen = best_nodes(draft, self.cost)
        if chosen:
            state.idle, state.probe_after = 0, _FIRST_PROBE
            return draft.keep(chosen[: MOST_ROWS - 1])
        if not len(draft):
            return draft
        # Nothing pays at present. Chances change with the text, so a single token is tried now and then, ever more
        # rarely: one extra row costs little.
        state.idle += 1
        if state.idle < state.probe_after:
            return Draft()
        state.idle, state.probe_after = 0, min(2 * state.probe_after, _LAST_PROBE)
        return draft.keep([0])


def situation_of(match_length: int) -> int:
    """Lookup matches of similar length share their statistics: 2, 3, 4-5, 6-9, 10-17, longer."""
    return min(max(match_length - 1, 0).bit_length() if match_length > 3 else match_length, 6)


def _count(counts: list[int], at: int, by: int) -> None:
    counts.extend([0] * (at + 1 - len(counts)))
    counts[at] += by
