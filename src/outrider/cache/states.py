"""What drafters keep of positions, such as keys and values of their own: it stays and goes with the target's pages.

A page of the tree may lack it: then a sequence that begins there is drafted for without, which changes no token.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from typing import Protocol, TypeAlias

from outrider.arrays import Bytes
from outrider.backends import cpu


class StatePage:
    """What one kind of drafter keeps of one page of positions: `data` is (state bytes of a page,) uint8, read-only."""

    def __init__(self, data: Bytes) -> None:
        self.data = data


AnyPage: TypeAlias = cpu.KvPage | StatePage
"""What a node of the tree may hold."""


class StatePages:
    """The memory of these pages.

    Args:
        bytes_per_position: by kind of drafter, of those that keep any.

    Attributes:
        kinds: their names; elsewhere, what drafters keep is in this order.
        page_bytes: of a page of each.
        bytes_in_use: of all pages.
    """

    def __init__(self, bytes_per_position: Mapping[str, int]) -> None:
        self.kinds = tuple(bytes_per_position)
        self.page_bytes = tuple(cpu.PAGE_POSITIONS * size for size in bytes_per_position.values())
        self.bytes_in_use = 0

    def page(self, kind: int, data: Bytes) -> StatePage:
        """A page with these bytes, which nobody may change any more.

        Args:
            kind: an index of `kinds`.
            data: (page_bytes[kind],) uint8.

        Raises:
            ValueError: another size or type (a bug of the drafter, not of the input).
        """
        if data.shape != (self.page_bytes[kind],) or data.dtype != "uint8":
            found, wanted = f"{data.shape} {data.dtype}", self.page_bytes[kind]
            raise ValueError(f"the state of a page of the drafter {self.kinds[kind]} is ({wanted},) uint8, not {found}")
        data.flags.writeable = False
        page = StatePage(data)
        self.bytes_in_use += data.nbytes
        weakref.finalize(page, self._released, data.nbytes).atexit = False
        return page

    def _released(self, size: int) -> None:
        self.bytes_in_use -= size


class KeepsStates(Protocol):
    """What the drafters of one sequence keep, by kind as in `StatePages.kinds`; None for what is not there."""

    def resume(self, length: int, pages: Sequence[Sequence[StatePage | None]]) -> None:
        """The sequence begins behind `length` positions of others; `pages` are those that hold them."""

    def of_page(self, index: int) -> Sequence[StatePage | None]:
        """What they keep of the committed positions of page `index`; of one that is not full, a copy."""
