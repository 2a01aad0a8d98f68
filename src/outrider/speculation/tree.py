"""The draft: a tree of proposed tokens, rooted at the last token that is already certain."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

ROOT = -1
Situation = tuple[int, ...]
"""From the coarse to the fine: what its source knew when it proposed a node."""


@dataclass(frozen=True)
class Node:
    """One proposed token.

    `parent` is the index of an earlier node, or ROOT; `probability` is the estimated chance that the target chooses
    this token once it has chosen the parent; `source` names the drafter that proposed it first, and `situation` what
    that drafter knew of it (see `controller.Calibration`).
    """

    token: int
    parent: int
    depth: int
    probability: float
    source: str
    situation: Situation = ()


@dataclass
class Draft:
    """Nodes in an order in which every parent stands before its children; shared prefixes are one path."""

    nodes: list[Node] = field(default_factory=list)
    _index: dict[tuple[int, int], int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.nodes)

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes)

    def add(self, parent: int, token: int, probability: float, source: str, situation: Situation = ()) -> int:
        """The index of `token` under `parent`, which is a new node unless another source proposed the same.

        Two sources that agree are at least as sure as the surer one, so the higher probability stays.
        """
        known = self._index.get((parent, token))
        if known is None:
            depth = 0 if parent == ROOT else self.nodes[parent].depth + 1
            self._index[parent, token] = len(self.nodes)
            self.nodes.append(Node(token, parent, depth, probability, source, situation))
            return len(self.nodes) - 1
        node = self.nodes[known]
        if probability > node.probability:
            self.nodes[known] = replace(node, probability=probability)
        return known

    def child(self, parent: int, token: int) -> int | None:
        """The node of `token` under `parent`, if it was proposed."""
        return self._index.get((parent, token))

    def likeliest_child(self, parent: int) -> int | None:
        """The likeliest node under `parent`, if anything was proposed there."""
        children = [i for i, node in enumerate(self.nodes) if node.parent == parent]
        return max(children, key=lambda i: self.nodes[i].probability, default=None)

    def path_probabilities(self) -> list[float]:
        """Per node the estimated chance that it is accepted: the product of probabilities along its path."""
        chances: list[float] = []
        for node in self.nodes:
            chances.append(node.probability * (1.0 if node.parent == ROOT else chances[node.parent]))
        return chances

    def keep(self, chosen: list[int]) -> Draft:
        """The draft of the chosen nodes alone; a chosen node's parent must be chosen too."""
        kept, renumbered = Draft(), {ROOT: ROOT}
        for index in sorted(chosen):
            node = self.nodes[index]
            parent = renumbered[node.parent]
            renumbered[index] = kept.add(parent, node.token, node.probability, node.source, node.situation)
        return kept
