"""What drafts bring is told apart from what the machine did meanwhile."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outrider.bench.comparison import Comparison
from outrider.bench.figures import summarize
from outrider.bench.pass_costs import PassCosts
from outrider.bench.prompt import Prompt
from outrider.engine.outputs import RequestOutput, RequestStats, TargetPass

USUAL = {1: 0.008, 4: 0.010, 8: 0.014}
"""Seconds of passes over so many rows."""
FASTER = {1: 0.005, 4: 0.010, 8: 0.013}
"""The same at another pace of the machine, at which drafts bring less."""
TOKENS = 120
ROWS = {"a": [1] * 20 + [4] * 20 + [8] * 5, "b": [8] * 20, "c": [4] * 30 + [1] * 40, "d": [8] * 30 + [4] * 5}
"""Prompt -> rows of the passes that its answer takes with drafts."""


def answer(rows, costs, *, beside=0.0, prompt_tokens=40, tokens=TOKENS, noise=lambda: 1.0):
    passes = [TargetPass(m, costs[m] * noise()) for m in rows]
    stats = RequestStats(prompt_tokens=prompt_tokens, decoded_tokens=tokens, passes=passes)
    stats.decode_seconds = stats.verify_seconds + beside
    return RequestOutput((1,), (1,), "", "length", stats)


def pair(name, plain_costs, drafted_costs=None, **more):
    plain, drafted = ([1] * TOKENS, plain_costs), (ROWS[name], drafted_costs or plain_costs)
    return Comparison(Prompt("prose", name), *(answer(*of, **more) for of in (plain, drafted)), None)


def true(name, costs):
    return TOKENS * costs[1] / sum(costs[rows] for rows in ROWS[name])


def speedups(comparisons):
    costs = PassCosts(comparisons)
    return [costs.speedup(of) for of in comparisons if costs.counts(of)]


@given(st.lists(st.sampled_from(sorted(ROWS)), min_size=1, max_size=8), st.floats(0, 0.5))
def test_on_a_steady_machine_it_is_what_was_timed(names, beside):
    made = [pair(name, USUAL, beside=beside) for name in names]
    as_timed = [of.drafted.stats.decode_tokens_per_second / of.plain.stats.decode_tokens_per_second for of in made]
    assert speedups(made) == pytest.approx(as_timed)


def test_a_pass_that_was_disturbed_does_not_count():
    made = [pair(name, USUAL) for name in ROWS for _ in range(3)]
    made[0].drafted.stats.passes[0] = TargetPass(1, 2.0)
    made[0].drafted.stats.decode_seconds += 2.0 - USUAL[1]
    assert speedups(made) == pytest.approx([true(name, USUAL) for name in ROWS for _ in range(3)])


def test_what_is_done_beside_the_passes_counts_as_it_was_timed():
    made = [pair("b", USUAL), pair("b", USUAL, beside=0.1)]
    assert speedups(made)[1] == pytest.approx((TOKENS * USUAL[1] + 0.1) / (20 * USUAL[8] + 0.1))


def test_passes_over_one_row_beside_drafts_cost_what_they_cost_there():
    beside_drafts = USUAL | {1: 0.009}
    made = [pair(name, USUAL, beside_drafts) for name in ROWS]
    timed = [TOKENS * USUAL[1] / sum(beside_drafts[rows] for rows in ROWS[name]) for name in ROWS]
    assert speedups(made) == pytest.approx(timed)


def test_passes_at_a_long_context_are_counted_apart():
    long = {rows: 3 * seconds for rows, seconds in USUAL.items()}
    made = [pair("a", USUAL), pair("b", long, prompt_tokens=3400)]
    assert speedups(made) == pytest.approx([true("a", USUAL), true("b", long)])


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32))
def test_a_machine_that_changes_its_pace_does_not_move_it(seed):
    """Up to two fifths of the pairs at a faster pace, every pass off by 5 %."""
    random = np.random.default_rng(seed)
    names = [*ROWS] * 5
    faster = random.permutation(len(names)) < random.integers(0, 9)
    made = [
        pair(name, FASTER if fast else USUAL, noise=lambda: float(random.normal(1, 0.05)))
        for name, fast in zip(names, faster, strict=True)
    ]
    costs = PassCosts(made)
    assert [costs.counts(of) for of in made] == [not fast for fast in faster]
    total = summarize(made, costs)["total"]
    assert total["speedup"] == pytest.approx(float(np.prod([true(name, USUAL) for name in ROWS]) ** 0.25), rel=0.02)
    assert total["plain_tokens_per_second"] == pytest.approx(1 / USUAL[1], rel=0.05)
    if sum(faster) > 4:
        assert total["speedup_as_timed"] < 0.96 * total["speedup"]


def test_a_prompt_that_was_never_decoded_at_the_usual_pace_counts_at_it():
    made = [pair(name, USUAL) for name in "abc" for _ in range(3)] + [pair("d", FASTER)]
    costs = PassCosts(made)
    assert costs.counts(made[-1])
    assert costs.speedup(made[-1]) == pytest.approx(true("d", USUAL))


def test_answers_of_one_token_are_no_gain():
    nothing = answer([], USUAL, tokens=0)
    made = [Comparison(Prompt("list", "x"), nothing, nothing, None), pair("a", USUAL)]
    assert speedups(made) == pytest.approx([1.0, true("a", USUAL)])


def test_tokens_that_differ_are_compared_by_speed():
    plain, drafted = answer([1] * 100, USUAL, tokens=100), answer([8] * 10, USUAL, tokens=50)
    (found,) = speedups([Comparison(Prompt("prose", "x"), plain, drafted, None)])
    assert found == pytest.approx(USUAL[1] / (10 * USUAL[8] / 50))
