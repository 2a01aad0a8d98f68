"""What drafts bring: the expected tokens of a round, and the draft length that is best."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outrider.roofline.hardware import Hardware
from outrider.roofline.speedup import MOST_DRAFTED, Plan, expected_tokens
from outrider.roofline.work import Matrix, Work

TARGET = Work((Matrix("Q4_0", 10**9, 562_500_000),), (), sweeps=1)
DRAFTER = Work((Matrix("Q4_0", 2 * 10**7, 11_250_000),), (), sweeps=1)


def plan(multiply_adds=300e9, drafter=DRAFTER):
    on = Hardware("x", 30e9, multiply_adds)
    return Plan(TARGET, drafter, on, context=0)


@pytest.mark.parametrize(("acceptance", "drafted"), [(0.0, 4), (0.5, 1), (0.7, 3), (0.9, 8), (1.0, 5)])
def test_expected_tokens_are_what_rounds_bring(acceptance, drafted):
    rng, rounds, tokens = random.Random(1), 20_000, 0
    for _ in range(rounds):
        tokens += 1 + next((depth for depth in range(drafted) if rng.random() >= acceptance), drafted)
    assert expected_tokens(acceptance, drafted) == pytest.approx(tokens / rounds, abs=0.08)


@given(st.floats(0, 1), st.integers(1, 100), st.floats(1e10, 1e14))
def test_the_best_length_is_the_best_of_all(acceptance, requests, multiply_adds):
    p = plan(multiply_adds)
    best = p.best(acceptance, requests)
    speedups = [p.speedup(acceptance, drafted, requests) for drafted in range(MOST_DRAFTED + 1)]
    assert speedups[0] == pytest.approx(1.0)
    assert best.speedup == max(speedups) == speedups[best.drafted]


def test_drafts_that_are_never_right_are_not_made():
    assert plan().best(0.0) == (0, pytest.approx(1.0))


def test_no_drafter_costs_nothing():
    assert plan(drafter=None).step_seconds() == 0.0
    assert plan(drafter=None).best(0.7).speedup > plan().best(0.7).speedup


def test_where_arithmetic_is_full_already_drafts_bring_nothing():
    assert plan().best(0.7, 1).speedup > 1.5
    assert plan().best(0.7, 64).speedup < 1.01
    assert plan(multiply_adds=1e9).least_acceptance() is None


def test_the_least_acceptance_is_where_it_begins_to_pay():
    least = plan().least_acceptance()
    assert plan().best(least).speedup >= 1.05 > plan().best(least - 0.01).speedup


def test_a_pass_takes_so_many_drafts_and_no_more():
    p = plan(multiply_adds=1e14)
    free = p.best(0.9, 8).drafted
    bound = Plan(p.target, p.drafter, replace(p.hardware, most_drafted=15), 0)
    assert free > 1
    assert bound.best(0.9, 8).drafted == 1
    assert bound.best(0.9, 16) == (0, pytest.approx(1.0))
