"""Runs of a benchmark are compared at the same pace of the machine."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.repeatability import at_the_same_pace, by_category, deviation

SPEEDUPS = [1.5, 2.0, 2.5, 4.0]
ROUNDS = 6


def measured(random, fast_share, slope, noise=0.02):
    """Pairs of one run in which the machine is half as fast again for some share of the time, in one piece."""
    order = [i for _ in range(ROUNDS) for i in random.permutation(8)]
    begins = random.integers(0, len(order))
    pairs = []
    for place, i in enumerate(order):
        pace = 1.5 if (place - begins) % len(order) < fast_share * len(order) else 1.0
        plain = 40 * (1 + i / 10) * pace * np.exp(random.normal(0, noise))
        drafted = 40 * (1 + i / 10) * pace ** (1 + slope) * SPEEDUPS[i // 2] * np.exp(random.normal(0, noise))
        pair = {"category": f"category {i // 2}", "prompt": i, "plain_tokens_per_second": plain}
        pairs.append(pair | {"speedup": drafted / plain})
    return pairs


@pytest.mark.parametrize("slope", [-0.7, 0.0, 0.4])
def test_what_follows_the_pace_is_taken_off_and_nothing_else(slope):
    random = np.random.default_rng(3)
    runs = [measured(random, share, slope) for share in (0.0, 0.5, 0.9)]
    adjusted, found = at_the_same_pace(runs)
    assert found == pytest.approx(slope, abs=0.12)
    before, after = ([by_category(pairs) for pairs in of] for of in (runs, adjusted))
    for category in before[0]:
        assert deviation([of[category] for of in after]) < 0.05
    if slope == -0.7:
        assert deviation([of["all"] for of in before]) > 0.1


def test_where_nothing_follows_the_pace_a_difference_stays():
    random = np.random.default_rng(4)
    runs = [measured(random, 0.5, 0.0) for _ in range(3)]
    for pair in runs[2]:
        pair["speedup"] *= 1.2
    adjusted, _ = at_the_same_pace(runs)
    assert deviation([by_category(pairs)["all"] for pairs in adjusted]) > 0.15


def test_a_run_alone_on_a_steady_machine_is_what_it_was():
    pairs = [{"category": "code", "prompt": i % 2, "plain_tokens_per_second": 50.0, "speedup": 2.0} for i in range(8)]
    (adjusted,), slope = at_the_same_pace([pairs])
    assert slope == 0
    assert by_category(adjusted) == pytest.approx({"code": 2.0, "all": 2.0})
