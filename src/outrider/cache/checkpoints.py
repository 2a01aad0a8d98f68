"""Which pages of sliding layers are worth keeping behind their window.

A sequence resumes at a position only if each sliding layer still holds the whole window before it: rows that were
computed behind a cut window would be others. Full attention keeps all its pages anyway, so the pages of sliding layers
decide where one may return to; the rows from there on are computed again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from outrider.cache.node import Node

NEWEST = 8_000
"""Positions before the end of a sequence of which every page is kept: most prompts return there."""
EVERY = 4_096
"""Distance of the positions before that to which one can return."""


def worth_keeping(path: Sequence[Node[Any]], index: int, page: int, window: int) -> bool:
    """Whether page `index` of a sequence is, once more than `NEWEST` positions and its window lie behind it.

    One can return to every multiple of `EVERY`, and to where a prompt ended, which is the start of a model's turn. A
    page also stays while another sequence leaves this one within `NEWEST` positions, since they are newest of that one.

    Args:
        path: the nodes of the sequence.
        page, window: positions.
    """
    begin = index * page
    if (begin + page + window - 1) // EVERY * EVERY > begin:
        return True
    reach, newest = -(-window // page), -(-NEWEST // page)
    if any(node.turn for node in path[index : index + reach + 1]):
        return True
    return any(len(node.children) > 1 for node in path[index : index + newest + reach])
