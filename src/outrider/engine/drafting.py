"""Decides what to draft for the requests of a pass, and learns from what became of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from weakref import proxy

from outrider.drafters.lookup import HistoryDrafter, LookupDrafter
from outrider.drafters.mtp import MtpDrafter
from outrider.drafters.protocol import Ask, Drafter
from outrider.drafters.tree import ROOT, Draft, Situation, reported
from outrider.engine.request import Request
from outrider.engine.target import Floats
from outrider.models.assistant import Drafting
from outrider.speculation.controller import Calibration, Level, Pace, VerifyCost, VerifyCosts, best_nodes, best_pace
from outrider.speculation.walk import Verdict

MOST_ROWS = 16
"""Rows that one sweep over the weights serves; the drafts of a pass never ask for more by themselves."""
_FIRST_PROBE, _LAST_PROBE = 8, 64


@dataclass
class _Probing:
    """When a request tries a token although none pays: chances change with the text."""

    idle: int = 0  # passes since anything was worth drafting
    after: int = _FIRST_PROBE

    def due(self) -> bool:
        """Whether to try one now; ever more rarely, since one extra row costs little, but not nothing."""
        self.idle += 1
        if self.idle < self.after:
            return False
        self.idle, self.after = 0, min(2 * self.after, _LAST_PROBE)
        return True


@dataclass
class _Text:
    """What is known of a request's text."""

    probing: _Probing = field(default_factory=_Probing)
    level: Level = field(default_factory=Level)


class DraftPlanner:
    """Lets every source grow one tree for each request and keeps what is worth verifying.

    Args:
        cost: seconds of a pass by rows, at short context.
        lookup: whether lookup may propose.
        history: tokens of earlier requests that lookup may also propose from; 0 for none.
        drafting: the recorded MTP drafter, if there is one.
        vocabulary: of the target.
    """

    def __init__(
        self,
        cost: VerifyCost,
        *,
        lookup: bool = True,
        history: int = 0,
        drafting: Drafting | None = None,
        vocabulary: int = 0,
    ) -> None:
        self.costs = VerifyCosts(cost)
        self.calibration = Calibration()
        self._pace = Pace()
        self._drafting = drafting
        self._cost = cost  # of the pass that is planned
        # The MTP drafter comes first: where several propose the same token, it keeps the credit.
        self.drafters: list[Drafter] = []
        self.wants_hidden = drafting is not None
        """Whether `observe` has to be told hidden states."""
        planner = proxy(self)  # or a model that nobody holds any more would keep its memory until a garbage collection

        def chance(sequence: int, source: str, situation: Situation, guess: float) -> float:
            """See `lookup.Chance`."""
            return float(planner._chance(sequence, source, situation, guess))

        def worth_a_step(chance: float, seconds: float) -> bool:
            return bool(planner._worth_a_step(chance, seconds))

        if drafting:
            self.drafters.append(MtpDrafter(drafting, vocabulary, chance, worth_a_step))
        if lookup:
            self.drafters.append(LookupDrafter(chance))
        if lookup and history:
            self.drafters.append(HistoryDrafter(chance, history))
        self._texts: dict[int, _Text] = {}

    @property
    def sources(self) -> list[str]:
        """Where drafts may come from, as requests report it."""
        return list(dict.fromkeys(reported(drafter.name) for drafter in self.drafters))

    def open(self, request: Request) -> None:
        """Begins a request."""
        self._texts[request.number] = _Text()
        for drafter in self.drafters:
            drafter.open(request.number, request.tokens, request.sequence.cache, request.chooser, request.params.scope)

    def close(self, request: Request) -> None:
        """Ends a request."""
        if self._texts.pop(request.number, None) is not None:
            for drafter in self.drafters:
                drafter.close(request.number)

    def cost_of(self, requests: Sequence[Request]) -> VerifyCost:
        """Seconds of a pass over these requests, by rows."""
        return self.costs.at(sum(request.sequence.cache.length for request in requests) // len(requests))

    def propose(self, requests: Sequence[Request], beside: int = 0) -> list[Draft]:
        """What the next pass verifies of every decoding request; empty where drafting does not pay.

        Args:
            beside: rows of others in the pass, as prompts: each makes a further row dearer.
        """
        if not requests:
            return []
        self._cost = self.cost_of(requests)
        asks = [_ask(request) for request in requests]
        wanted = [ask for ask in asks if ask.budget > 0]
        if wanted:
            for drafter in self.drafters:
                drafter.propose(wanted)
        certain = len(requests)
        for ask in wanted:
            if ask.pinned:  # that many tokens: the likeliest of the tree
                chances = ask.draft.path_probabilities()
                order = sorted(range(len(ask.draft)), key=lambda i: (-chances[i], i))
                ask.draft = ask.draft.keep(order[: ask.budget])
                certain += len(ask.draft)
        self._keep_worthwhile([ask for ask in wanted if not ask.pinned], certain, beside)
        return [ask.draft for ask in asks]

    def get_ready(self, requests: Sequence[Request]) -> None:
        """After a pass over these requests, which swept the drafter's weights from the caches: idle cores get them."""
        if self._drafting is not None and any(request.params.draft != "off" for request in requests):
            self._drafting.program.warm()

    def observe(self, request: Request, hidden: Floats) -> None:
        """Tells the drafters the hidden state that the next round starts from."""
        for drafter in self.drafters:
            drafter.observe(request.number, hidden)

    def learn(self, request: Request, draft: Draft, verdict: Verdict) -> None:
        """Books which nodes were right. A node counts only if the target was asked for its place."""
        accepted = set(verdict.accepted)
        # Where the walk asked: at the root and at each accepted node, unless the request ended there.
        asked = [ROOT, *verdict.accepted][: len(verdict.tokens)]
        for index, node in enumerate(draft):
            request.stats.count(reported(node.source), node.depth, index in accepted)
            if node.parent in asked:
                self.calibration.observe(node.source, node.situation, index in accepted)
                self._texts[request.number].level.observe(node.source, node.probability, index in accepted)

    def learn_cost(self, drafts: Sequence[Draft], context: int, verify_seconds: float, draft_seconds: float) -> None:
        """Books what a pass took that did nothing but verify these drafts, after `context` positions on average."""
        cost = self.costs.at(context)
        rows = sum(1 + len(draft) for draft in drafts)
        cost.observe(rows, verify_seconds)
        tokens = sum(1 + sum(draft.path_probabilities()) for draft in drafts)
        self._pace.observe(tokens, cost(rows) + draft_seconds)

    def _chance(self, sequence: int, source: str, situation: Situation, guess: float) -> float:
        return self._texts[sequence].level.applied(source, self.calibration.chance(source, situation, guess))

    def _worth_a_step(self, chance: float, seconds: float) -> bool:
        """Whether one more step of a drafter pays: what it may bring, against its own time and that of a row."""
        row = (self._cost(MOST_ROWS // 2) - self._cost(1)) / (MOST_ROWS // 2 - 1)
        return chance > self._pace.at_least(1 / self._cost(1)) * (seconds + row)

    def _keep_worthwhile(self, asks: Sequence[Ask], certain: int, beside: int) -> None:
        drafts, most = [ask.draft for ask in asks], MOST_ROWS - 1
        pace = self._pace.at_least(certain / self._cost(certain))
        if all(ask.budget < most for ask in asks):  # near the end, where the pace of before cannot be kept up
            pace = min(pace, best_pace(drafts, self._cost, certain, most))
        chosen = best_nodes(drafts, self._cost, certain + beside, pace, most)
        for ask, nodes in zip(asks, chosen, strict=True):
            probing = self._texts[ask.sequence].probing
            if nodes:
                probing.idle, probing.after = 0, _FIRST_PROBE
            elif len(ask.draft) and probing.due():
                nodes = [0]
            ask.draft = ask.draft.keep(nodes)


def _ask(request: Request) -> Ask:
    setting = request.params.draft
    most = MOST_ROWS - 1 if setting == "auto" else 0 if setting == "off" else setting
    return Ask(request.number, min(request.room - 1, most), pinned=setting != "auto")
