"""The accepting walk: verification of one draft."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from outrider.drafters.tree import ROOT, Draft


@dataclass(frozen=True)
class Verdict:
    """`accepted`: the nodes of the accepted path, from the root down. `tokens`: the target's choices along it, the
    accepted tokens and then the bonus token. `rejected`: the likeliest token that had been proposed in place of the
    bonus token and may be reported (see `tree.HISTORY`), if any."""

    accepted: list[int]
    tokens: list[int]
    rejected: int | None = None

    @property
    def visited(self) -> list[int]:
        """Nodes after which the target chose a token: the root and each accepted node where the request continued."""
        return [ROOT, *self.accepted][: len(self.tokens)]


def walk(draft: Draft, emit: Callable[[int], int | None]) -> Verdict:
    """Follows the target's own choices down the tree.

    Args:
        emit: chooses the target's token after a node (or after ROOT) and appends it to the text. Called once per node
            of the path, in order, so it may keep state that depends on the tokens before, as plain decoding would. None
            ends the walk at once: the request is finished.

    One rule for greedy and sampled text: at each node the target's choice is known; follow the child that equals it;
    stop where there is none. So the tokens are those of plain decoding, whatever was drafted.
    """
    accepted: list[int] = []
    tokens: list[int] = []
    at = ROOT
    while (token := emit(at)) is not None:
        tokens.append(token)
        child = draft.child(at, token)
        if child is None:
            break
        accepted.append(child)
        at = child
    wrong = draft.reportable_child(at) if len(tokens) > len(accepted) else None
    return Verdict(accepted, tokens, None if wrong is None else draft.nodes[wrong].token)
