"""Interleaved measurement: all arms in turns, and the estimate of a ratio from the pairs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np

Arm = TypeVar("Arm")
Result = TypeVar("Result")

_RESAMPLES = 2000
_SEED = 0


class Estimate(NamedTuple):
    """A geometric mean with its bootstrap 95 % interval."""

    value: float
    interval: tuple[float, float]


def turns(arms: Sequence[Arm], rounds: int) -> Iterator[list[Arm]]:
    """The arms of each round: A B C, then C B A, and so on, so that a drift of the machine affects all arms equally."""
    for number in range(rounds):
        yield list(arms) if number % 2 == 0 else list(reversed(arms))


def interleaved(
    arms: Mapping[Arm, Callable[[], Result]], rounds: int, after_each: Callable[[], None] = lambda: None
) -> dict[Arm, list[Result]]:
    """The results of each arm, one for each round.

    Args:
        after_each: called after every measurement, for a progress bar.
    """
    measured: dict[Arm, list[Result]] = {arm: [] for arm in arms}
    for order in turns(list(arms), rounds):
        for arm in order:
            measured[arm].append(arms[arm]())
            after_each()
    return measured


def estimate(groups: Sequence[Sequence[float]]) -> Estimate:
    """The geometric mean over groups of the geometric mean within each, with a bootstrap 95 % interval.

    A group holds the ratios of one prompt's pairs. The bootstrap has two stages (Davison and Hinkley 1997, section
    3.8): it draws groups with replacement, then pairs within each drawn group. So the interval covers both other
    prompts of the kind and the noise of the clock. It is seeded: the same ratios give the same interval.

    Args:
        groups: positive ratios; at least one group, none empty.
    """
    logs = [np.log(np.asarray(group, np.float64)) for group in groups]
    rng = np.random.default_rng(_SEED)
    drawn = rng.integers(len(logs), size=(_RESAMPLES, len(logs)))
    means = np.empty(drawn.shape)
    for number, group in enumerate(logs):
        here = drawn == number
        means[here] = rng.choice(group, (int(here.sum()), len(group))).mean(axis=1)
    low, high = np.exp(np.quantile(means.mean(axis=1), (0.025, 0.975)))
    return Estimate(float(np.exp(np.mean([group.mean() for group in logs]))), (float(low), float(high)))
