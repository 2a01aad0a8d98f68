"""Fair timing on a machine that is never quite quiet: everything compared is measured in turns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from typing import TypeVar

from outrider.bench.usual_pace import Gauges, UsualPace

Arm = TypeVar("Arm")
Result = TypeVar("Result")


def turns(arms: Sequence[Arm], rounds: int) -> Iterator[list[Arm]]:
    """The arms of each round: A B C, then C B A, and so on, so that a drift of the machine hits all alike."""
    for number in range(rounds):
        yield list(arms) if number % 2 == 0 else list(reversed(arms))


def interleaved(
    arms: Mapping[Arm, Callable[[], Result]],
    rounds: int,
    gauge: Callable[[], float],
    after_each: Callable[[], None] = lambda: None,
) -> tuple[dict[Arm, list[Result]], UsualPace]:
    """What each arm's callable returned while the machine was at its usual pace, or ever, if it never was; and that.

    Args:
        gauge: seconds that tell how fast the machine is just now; read before and after each arm.
        after_each: called after every measurement, for a progress bar.
    """
    measured: dict[Arm, list[tuple[Gauges, Result]]] = {arm: [] for arm in arms}
    before = gauge()
    for order in turns(list(arms), rounds):
        for arm in order:
            result, after = arms[arm](), gauge()
            measured[arm].append(((before, after), result))
            before = after
            after_each()
    pace = UsualPace([gauges for gauges, _ in chain.from_iterable(measured.values())])
    at_pace = {
        arm: [result for gauges, result in results if pace.holds(gauges)] or [result for _, result in results]
        for arm, results in measured.items()
    }
    return at_pace, pace
