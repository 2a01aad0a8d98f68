"""Draft planning: which nodes the next pass verifies, and learning from its verdicts and time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from outrider.arrays import Bytes
from outrider.drafters.protocol import Ask, CommittedRows, Drafter, HiddenRows, SequenceState
from outrider.drafters.tree import Draft, reported
from outrider.speculation.budget import Pace, best_nodes, best_pace
from outrider.speculation.calibration import Acceptance, Calibration
from outrider.speculation.costs import MOST_ROWS, VerifyCost, VerifyCosts
from outrider.speculation.walk import Verdict

_MOST_NODES = MOST_ROWS - 1
_FIRST_PROBE, _LAST_PROBE = 8, 64


@dataclass
class _Probing:
    """When a source is probed although it does not pay, since chances change with the text.

    The interval doubles up to a limit: a row and a drafting step are cheap, but not free.
    """

    idle: int = 0  # passes since one of its tokens was verified
    after: int = field(default_factory=lambda: _FIRST_PROBE)


class DraftPlanner:
    """Collects the proposals of all drafters in one tree per sequence and keeps the nodes worth verifying.

    Args:
        cost: seconds of a pass by rows, at short context.
        drafters: in the order in which they propose.
        keeping: names of those that keep a state of each page; see `Drafter.state`.
    """

    def __init__(self, cost: VerifyCost, drafters: Sequence[Drafter], keeping: Sequence[str] = ()) -> None:
        self.costs = VerifyCosts(cost)
        self.calibrations = defaultdict[str | None, Calibration](Calibration)
        """By adapter, each of which chooses other tokens."""
        self.drafters = list(drafters)
        by_name = {drafter.name: drafter for drafter in drafters}
        self._keeping = [by_name.get(name) for name in keeping]
        self._pace = Pace()
        self._acceptance: dict[int, Acceptance] = {}
        self._probing: dict[int, dict[str, _Probing]] = {}  # by sequence and source

    @property
    def sources(self) -> list[str]:
        """The sources of drafts, as requests report them."""
        return list(dict.fromkeys(reported(drafter.name) for drafter in self.drafters))

    @property
    def hidden(self) -> HiddenRows:
        """The rows whose hidden states `observe` requires."""
        needs = {drafter.hidden for drafter in self.drafters}
        return "all" if "all" in needs else "last" if "last" in needs else "none"

    @property
    def reuses(self) -> bool:
        """Whether a sequence may begin with rows that are not computed."""
        return all(drafter.hidden != "all" or drafter in self._keeping for drafter in self.drafters)

    def open(self, sequence: SequenceState) -> None:
        """Begins a sequence."""
        self._acceptance[sequence.number] = Acceptance(self.calibrations[sequence.lora])
        self._probing[sequence.number] = {drafter.name: _Probing() for drafter in self.drafters}
        for drafter in self.drafters:
            drafter.open(sequence)

    def close(self, sequence: SequenceState) -> None:
        """Ends a sequence."""
        self._probing.pop(sequence.number, None)
        if self._acceptance.pop(sequence.number, None) is not None:
            for drafter in self.drafters:
                drafter.close(sequence)

    def cost_of(self, sequences: Sequence[SequenceState]) -> VerifyCost:
        """Seconds of a pass over these sequences, by rows."""
        return self.costs.at(sum(sequence.cache.length for sequence in sequences) // len(sequences))

    def propose(self, sequences: Sequence[SequenceState], other_rows: int = 0) -> list[Draft]:
        """The draft of every decoding sequence for the next pass; empty where drafting does not pay.

        Args:
            other_rows: rows of prompts in the same pass; they raise the marginal row cost.
        """
        if not sequences:
            return []
        cost = self.cost_of(sequences)
        asks = [self._ask(sequence, cost) for sequence in sequences]
        open_asks = [ask for ask in asks if ask.budget > 0]
        for drafter in self.drafters:
            drafter.propose(open_asks)
        certain = len(sequences)
        for ask in open_asks:
            if ask.fixed:
                ask.draft = _likeliest(ask.draft, ask.budget)
                certain += len(ask.draft)
        self._keep_worthwhile([ask for ask in open_asks if not ask.fixed], cost, certain, other_rows)
        return [ask.draft for ask in asks]

    def learn(self, sequence: SequenceState, draft: Draft, verdict: Verdict) -> None:
        """Learns which nodes were accepted. A node counts only if its parent was, as the target chose after it."""
        acceptance, visited = self._acceptance[sequence.number], verdict.visited
        for index, node in enumerate(draft):
            if node.parent in visited:
                acceptance.observe(node.source, node.features, node.probability, index in verdict.accepted)

    def observe(self, sequence: SequenceState, rows: CommittedRows) -> None:
        """Reports committed rows to the drafters."""
        for drafter in self.drafters:
            drafter.observe(sequence, rows)

    def states(self, sequence: SequenceState, page: int) -> list[Bytes | None]:
        """What each drafter that keeps a state keeps of a page; see `Drafter.state`."""
        return [None if drafter is None else drafter.state(sequence, page) for drafter in self._keeping]

    def resume(self, sequence: SequenceState, length: int, pages: Sequence[Sequence[Bytes | None]]) -> None:
        """Gives these drafters what was kept of the first `length` positions, by page as `states` returned it."""
        for number, drafter in enumerate(self._keeping):
            if drafter is not None:
                drafter.resume(sequence, length, [kept[number] for kept in pages])

    def learn_cost(self, drafts: Sequence[Draft], context: int, verify_seconds: float, draft_seconds: float) -> None:
        """Learns the time of a pass over these drafts and no prompts, after `context` positions on average."""
        cost = self.costs.at(context)
        rows = sum(1 + len(draft) for draft in drafts)
        cost.observe(rows, verify_seconds)
        tokens = sum(1 + sum(draft.path_probabilities()) for draft in drafts)
        self._pace.observe(tokens, cost(rows) + draft_seconds)

    def prefetch(self, sequences: Sequence[SequenceState]) -> None:
        """Prefetches the drafters' weights, which a pass over these sequences evicted from the processor's caches."""
        if any(sequence.draft != "off" for sequence in sequences):
            for drafter in self.drafters:
                drafter.prefetch()

    def _ask(self, sequence: SequenceState, cost: VerifyCost) -> Ask:
        setting, probing = sequence.draft, self._probing[sequence.number]
        most = _MOST_NODES if setting == "auto" else 0 if setting == "off" else setting
        return Ask(
            sequence,
            min(sequence.room - 1, most),
            self._acceptance[sequence.number],
            fixed=setting != "auto",
            probe=frozenset(source for source, of in probing.items() if of.idle >= of.after),
            pace=self._pace.at_least(1 / cost(1)),
            row_seconds=(cost(MOST_ROWS // 2) - cost(1)) / (MOST_ROWS // 2 - 1),
        )

    def _keep_worthwhile(self, asks: Sequence[Ask], cost: VerifyCost, certain: int, other_rows: int) -> None:
        drafts = [ask.draft for ask in asks]
        pace = self._pace.at_least(certain / cost(certain))
        if all(ask.budget < _MOST_NODES for ask in asks):  # near the end, where that pace cannot be reached
            pace = min(pace, best_pace(drafts, cost, certain, _MOST_NODES))
        chosen = best_nodes(drafts, cost, certain + other_rows, pace, _MOST_NODES)
        for ask, nodes in zip(asks, chosen, strict=True):
            ask.draft = ask.draft.keep(sorted({*nodes, *self._probes(ask, nodes)}))

    def _probes(self, ask: Ask, chosen: Sequence[int]) -> list[int]:
        """Nodes to verify although they do not pay: the first of each source whose probe is due."""
        verified, probes = {ask.draft.nodes[node].source for node in chosen}, []
        for source, probing in self._probing[ask.sequence.number].items():
            probing.idle = 0 if source in ask.probe else probing.idle + 1
            if source in verified:
                probing.idle, probing.after = 0, _FIRST_PROBE
            elif source in ask.probe:
                first = next((i for i, n in enumerate(ask.draft) if n.source == source and n.depth == 0), None)
                if first is not None:
                    probes.append(first)
                    probing.after = min(2 * probing.after, _LAST_PROBE)
        return probes


def _likeliest(draft: Draft, count: int) -> Draft:
    chances = draft.path_probabilities()
    return draft.keep(sorted(range(len(draft)), key=lambda i: (-chances[i], i))[:count])
