"""The processors of a machine by core."""

from __future__ import annotations

from typing import NamedTuple


class CoresOf(NamedTuple):
    """The cores on which some processors (hyper-threads) are: one processor of each.

    Attributes:
        physical: of all cores.
        performance: of those that are not efficiency cores; all where none is faster, or nothing tells.
    """

    physical: list[int]
    performance: list[int]
