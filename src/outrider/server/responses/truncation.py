"""`truncation: "auto"`: the latest part of a conversation that fits the context."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import TypeVar

from outrider.errors import OutriderError
from outrider.prompts import ContextLengthError
from outrider.server.responses.items import Item, kind_of

Made = TypeVar("Made")


def latest_that_fits(make: Callable[[Sequence[Item]], Made], items: Sequence[Item]) -> Made:
    """What `make` returns for all items, or without the fewest of the oldest turns with which it fits.

    A turn begins with a user's message. System and developer messages stay.

    Args:
        make: raises ContextLengthError, or an error that it caused, for what is too long.

    Raises:
        OutriderError: not even the last turn fits; or `make` raised another error.
    """
    users = [at for at, item in enumerate(items) if kind_of(item) == "message" and item.get("role") == "user"]
    cuts = users[1:]
    try:
        return make(items)
    except OutriderError as error:
        if not cuts or not _too_long(error):
            raise

    def fits(cut: int) -> bool:
        try:
            make(_from(items, cut))
        except OutriderError as error:
            if _too_long(error):
                return False
            raise
        return True

    first = bisect_left(cuts, True, hi=len(cuts) - 1, key=fits)
    return make(_from(items, cuts[first]))


def _from(items: Sequence[Item], cut: int) -> list[Item]:
    kept = [item for item in items[:cut] if item.get("role") in ("system", "developer")]
    return [*kept, *items[cut:]]


def _too_long(error: OutriderError) -> bool:
    return isinstance(error, ContextLengthError) or isinstance(error.__cause__, ContextLengthError)
