"""The draft: a tree of proposed tokens, rooted at the last token that is already certain."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

ROOT = -1
HISTORY = "history"
"""The source of tokens from texts of earlier requests, which may be other users'.

An accepted one is reported as lookup's (`reported`). A rejected one would disclose a piece of another text: it is not
reported (`Draft.reportable_child`) unless another source proposed the same token.
"""
Features = tuple[int, ...]
"""What acceptance of a node is learnt by, from coarse to fine; its source defines them."""


def reported(source: str) -> str:
    """A source as requests report it; see HISTORY."""
    return "lookup" if source == HISTORY else source


@dataclass(frozen=True)
class Node:
    """One proposed token.

    `parent` is the index of an earlier node, or ROOT; `probability` is the estimated chance that the target chooses
    this token once it has chosen the parent; `source` is the drafter that proposed it first, `features` are that
    drafter's (see `speculation.calibration`). `own_probability` is the estimate without HISTORY.
    """

    token: int
    parent: int
    depth: int
    probability: float
    source: str
    features: Features = ()
    own_probability: float = 0.0


@dataclass
class Draft:
    """Nodes in an order in which every parent precedes its children; shared prefixes are one path."""

    nodes: list[Node] = field(default_factory=list)
    _index: dict[tuple[int, int], int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.nodes)

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes)

    def add(self, parent: int, token: int, probability: float, source: str, features: Features = ()) -> int:
        """The index of `token` under `parent`: a new node unless another source proposed the same.

        Where two sources agree, the higher probability stays. The node belongs to the source that proposed it first,
        HISTORY excepted.
        """
        own = 0.0 if source == HISTORY else probability
        known = self._index.get((parent, token))
        if known is None:
            depth = 0 if parent == ROOT else self.nodes[parent].depth + 1
            return self._append(Node(token, parent, depth, probability, source, features, own))
        node = self.nodes[known]
        if node.source == HISTORY != source:
            node = replace(node, source=source, features=features)
        if node is not self.nodes[known] or probability > node.probability or own > node.own_probability:
            highest = max(probability, node.probability)
            self.nodes[known] = replace(node, probability=highest, own_probability=max(own, node.own_probability))
        return known

    def child(self, parent: int, token: int) -> int | None:
        """The node of `token` under `parent`, if it was proposed."""
        return self._index.get((parent, token))

    def likeliest_child(self, parent: int) -> int | None:
        """The node with the highest probability under `parent`, if any was proposed."""
        children = (i for i, node in enumerate(self.nodes) if node.parent == parent)
        return max(children, key=lambda i: self.nodes[i].probability, default=None)

    def trunk(self, parent: int = ROOT) -> list[int]:
        """The likeliest node under `parent`, the likeliest under that, and so on to a leaf."""
        path = list[int]()
        while (child := self.likeliest_child(path[-1] if path else parent)) is not None:
            path.append(child)
        return path

    def reportable_child(self, parent: int) -> int | None:
        """The likeliest node under `parent` that a request may report, if any was proposed; see HISTORY.

        Compared without HISTORY's estimates: which of its candidates an MTP drafter rejects must not depend on them.
        """
        children = [i for i, node in enumerate(self.nodes) if node.parent == parent and node.source != HISTORY]
        return max(children, key=lambda i: self.nodes[i].own_probability, default=None)

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
            renumbered[index] = kept._append(replace(node, parent=renumbered[node.parent]))
        return kept

    def _append(self, node: Node) -> int:
        self._index[node.parent, node.token] = len(self.nodes)
        self.nodes.append(node)
        return len(self.nodes) - 1
