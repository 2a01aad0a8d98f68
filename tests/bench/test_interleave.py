"""Turns, and the estimate of a ratio from pairs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from outrider.bench.interleave import estimate, interleaved, turns

ratios = st.floats(0.1, 10)


def test_every_second_round_runs_backwards():
    assert list(turns("ABC", 3)) == [["A", "B", "C"], ["C", "B", "A"], ["A", "B", "C"]]


def test_results_are_those_of_each_arm_in_the_order_of_the_rounds():
    order, ended = [], []

    def arm(name):
        return lambda: order.append(name) or len(order)

    found = interleaved({"A": arm("A"), "B": arm("B")}, 3, lambda: ended.append(1))
    assert order == ["A", "B", "B", "A", "A", "B"]
    assert found == {"A": [1, 4, 5], "B": [2, 3, 6]}
    assert len(ended) == 6


def test_the_geometric_mean_of_known_ratios():
    assert estimate([[2.0], [8.0]]).value == pytest.approx(4.0)
    assert estimate([[1.0, 4.0], [8.0]]).value == pytest.approx(4.0)  # a prompt with more pairs counts no more
    assert estimate([[2.0, 0.5]]).value == pytest.approx(1.0)


@given(ratios, st.integers(1, 6), st.integers(1, 4))
def test_ratios_without_spread_have_an_interval_without_width(ratio, groups, pairs):
    found = estimate([[ratio] * pairs] * groups)
    assert [found.value, *found.interval] == pytest.approx([ratio] * 3)


@given(st.lists(st.lists(ratios, min_size=1, max_size=4), min_size=1, max_size=6))
def test_the_interval_lies_within_the_ratios_and_is_the_same_every_time(groups):
    found, again = estimate(groups), estimate(groups)
    assert found == again
    low, high = found.interval
    every = [ratio for group in groups for ratio in group]
    assert min(every) * (1 - 1e-9) <= low <= high <= max(every) * (1 + 1e-9)


def test_the_interval_has_the_width_that_theory_says():
    """Of the mean of n normal logarithms: 1.96 standard errors to either side."""
    logs = np.random.default_rng(3).normal(0.7, 0.2, 200)
    low, high = estimate([[ratio] for ratio in np.exp(logs)]).interval
    error = logs.std() / np.sqrt(len(logs))
    assert np.log(low) == pytest.approx(logs.mean() - 1.96 * error, abs=0.003)
    assert np.log(high) == pytest.approx(logs.mean() + 1.96 * error, abs=0.003)


def test_a_95_percent_interval_holds_the_truth_about_as_often():
    rng, held = np.random.default_rng(1), 0
    for _ in range(200):
        prompts = rng.normal(0.5, 0.3, 25)
        low, high = estimate([np.exp(mean + rng.normal(0, 0.1, 2)) for mean in prompts]).interval
        held += low <= np.exp(0.5) <= high
    assert 0.88 <= held / 200 <= 0.99


def test_pairs_of_one_prompt_alone_have_the_noise_of_the_clock():
    low, high = estimate([[1.9, 2.0, 2.1]]).interval
    assert 1.9 <= low < 2.0 < high <= 2.1
