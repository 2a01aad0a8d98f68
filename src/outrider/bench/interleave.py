"""Fair timing on a machine that is never quite quiet: everything compared is measured in turns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import median
from typing import TypeVar

Arm = TypeVar("Arm")
Result = TypeVar("Result")


def turns(arms: Sequence[Arm], rounds: int) -> Iterator[list[Arm]]:
    """The arms of each round: A B C, then C B A, and so on, so that a drift of the machine hits all alike."""
    for number in range(rounds):
        yield list(arms) if number % 2 == 0 else list(reversed(arms))


def interleaved(
    arms: Mapping[Arm, Callable[[], Sequence[float]]], rounds: int, after_each: Callable[[], None] = lambda: None
) -> dict[Arm, float]:
    """The median of everything that each arm's callable returned over all rounds.

    Args:
        after_each: called after every measurement, for a progress bar.
    """
    measured: dict[Arm, list[float]] = {arm: [] for arm in arms}
    for order in turns(list(arms), rounds):
        for arm in order:
            measured[arm].extend(arms[arm]())
            after_each()
    return {arm: median(values) for arm, values in measured.items()}
