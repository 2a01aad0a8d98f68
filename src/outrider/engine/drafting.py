"""Decides what to draft for a request, and learns from what became of it."""

from __future__ import annotations

from dataclasses import dataclass, field

from outrider.engine.request import Request
from outrider.speculation.controller import Calibration, VerifyCost, best_nodes
from outrider.speculation.lookup import LookupDrafter
from outrider.speculation.tree import ROOT, Draft
from outrider.speculation.verify import Verdict

MOST_ROWS = 16
"""Rows that one sweep over the weights serves; a draft never asks for more by itself."""
_FIRST_PROBE, _LAST_PROBE = 8, 64


@dataclass
class _State:
    situation: int = 0
    idle: int = 0  # steps since the controller last let anything be drafted
    probe_after: int = _FIRST_PROBE


@dataclass
class DraftPlanner:
    """Asks the drafters and keeps what is worth verifying.

    Args:
        cost: seconds of a pass by rows.
        lookup: whether lookup may propose.
    """

    cost: VerifyCost
    lookup: bool = True
    calibration: Calibration = field(default_factory=lambda: Calibration({"lookup": 0.6}))
    _states: dict[int, _State] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._drafter = LookupDrafter(lambda length: self.calibration.chance("lookup", situation_of(length)))

    def open(self, request: Request) -> None:
        """Begins a request."""
        self._states[request.number] = _State()
        if self.lookup:
            self._drafter.open(request.number, request.tokens, request.sequence.cache)

    def close(self, request: Request) -> None:
        """Ends a request."""
        if self._states.pop(request.number, None) is not None and self.lookup:
            self._drafter.close(request.number)

    def propose(self, request: Request) -> Draft:
        """The draft that the next pass verifies; empty where drafting does not pay."""
        setting = request.params.draft
        longest = min(request.room - 1, MOST_ROWS - 1 if setting == "auto" else 0 if setting == "off" else setting)
        draft = Draft()
        if longest <= 0 or not self.lookup:
            return draft
        state = self._states[request.number]
        state.situation = situation_of(self._drafter.match_length(request.number))
        self._drafter.propose(request.number, draft, longest)
        return draft if setting != "auto" else self._worthwhile(draft, state)

    def learn(self, request: Request, draft: Draft, verdict: Verdict) -> None:
        """Books which nodes were right. A node counts only if the target was asked for its place."""
        stats, state = request.stats, self._states[request.number]
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
                self.calibration.observe(node.source, state.situation, 1, int(right))

    def _worthwhile(self, draft: Draft, state: _State) -> Draft:
        chosen = best_nodes(draft, self.cost)
        if chosen:
            state.idle, state.probe_after = 0, _FIRST_PROBE
            return draft.keep(chosen)
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
