"""A node of the prefix tree: one page of positions, and the memory that holds its keys and values."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Generic, TypeVar

from outrider.cache.rows import Row

Page = TypeVar("Page")
"""`cpu.KvPage` or `states.StatePage`; tests use plain values."""


@dataclass(eq=False)
class Node(Generic[Page]):
    """Consecutive positions from a multiple of the page size on: as many as a page has, or fewer in a leaf.

    Attributes:
        parent: the node of the page before it; None for a root, which has no rows.
        rows: what they are; see `rows.Row`.
        key: identifies its rows and all those before them, in its scope.
        pages: by group of layers, then by kind of drafter. That of full attention is always there; those of sliding
            layers only while they are worth keeping; those of drafters where they had something to keep.
        children: by their rows.
        users: running sequences that hold the page of full attention.
        turn: whether a prompt ended within it, or at its end.
    """

    parent: Node[Page] | None
    rows: tuple[Row, ...]
    key: bytes
    pages: list[Page | None]
    children: dict[tuple[Row, ...], Node[Page]] = field(default_factory=dict)
    users: int = 0
    turn: bool = False


def root_key(scope: Hashable) -> bytes:
    """The key of the root of a scope: requests of other scopes find nothing below it."""
    return sha256(repr(scope).encode()).digest()


def child_key(parent: bytes, rows: Sequence[Row]) -> bytes:
    """The key of a node."""
    return sha256(parent + repr(tuple(rows)).encode()).digest()
