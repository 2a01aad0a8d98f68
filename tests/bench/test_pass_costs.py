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

USUAL = {1: 0.005, 4: 0.010, 8: 0.013}
"""Seconds of passes over so many rows at the machine's usual pace."""
SLOWER = {1: 0.008, 4: 0.010, 8: 0.014}
"""The same at another pace, at which drafts bring more."""
TOKENS = 120
ROWS = {"a": [1] * 20 + [4] * 20 + [8] * 5, "b": [8] * 20, "c": [4] * 30 + [1] * 40, "d": [8] * 30 + [4] * 5}
"""Prompt -> rows of the passes that its answer takes with drafts."""


def answer(rows, costs, *, beside=0.0, prompt_tokens=40, tokens=TOKENS, noise=lambda: 1.0):
    passes = [TargetPass(m, costs[m] * noise()) for m in rows]
    stats = RequestStats(prompt_tokens=prompt_tokens, decoded_tokens=tokens, passes=passes)
    stats.decode_seconds = stats.verify_seconds + beside
    return RequestOutput((1,), (1,), "", "length", stats)


def pair(name, plain_costs, drafted_costs=None, *, gauge=None, peer=None, **more):
    drafted_costs = drafted_costs or plain_costs
    plain, drafted = answer([1] * TOKENS, plain_costs, **more), answer(ROWS[name], drafted_costs, **more)
    seconds = {"plain": plain_costs[1], "drafted": drafted_costs[1], "peer": plain_costs[1]}
    gauges = {arm: (gauge or of, gauge or of) for arm, of in seconds.items()}
    return Comparison(Prompt("prose", name), plain, drafted, peer, gauges)


def true(name, costs):
    return TOKENS * costs[1] / sum(costs[rows] for rows in ROWS[name])


def speedups(comparisons):
    costs = PassCosts(comparisons)
    return [
        costs.tokens_per_second(of.drafted.stats, drafted=True) / costs.tokens_per_second(of.plain.stats, drafted=False)
        for of in comparisons
    ]


@given(st.lists(st.sampled_from(sorted(ROWS)), min_size=1, max_size=8), st.floats(0, 0.5))
def test_on_a_steady_machine_it_is_what_was_timed(names, beside):
    made = [pair(name, USUAL, beside=beside) for name in names]
    as_timed = [of.drafted.stats.decode_tokens_per_second / of.plain.stats.decode_tokens_per_second for of in made]
    assert speedups(made) == pytest.approx(as_timed)
    total = summarize(made, PassCosts(made))["total"]
    assert total["speedup"] == pytest.approx(total["speedup_as_timed"])


def test_a_pass_that_was_disturbed_does_not_count():
    made = [pair(name, USUAL) for name in ROWS for _ in range(3)]
    made[0].drafted.stats.passes[0] = TargetPass(1, 2.0)
    made[0].drafted.stats.decode_seconds += 2.0 - USUAL[1]
    assert speedups(made) == pytest.approx([true(name, USUAL) for name in ROWS for _ in range(3)])


def test_what_is_done_beside_the_passes_counts_as_it_was_timed():
    made = [pair("b", USUAL), pair("b", USUAL, beside=0.1)]
    assert speedups(made)[1] == pytest.approx((TOKENS * USUAL[1] + 0.1) / (20 * USUAL[8] + 0.1))


def test_passes_over_one_row_beside_drafts_cost_what_they_cost_there():
    beside_drafts = USUAL | {1: 0.0055}
    made = [pair(name, USUAL, beside_drafts) for name in ROWS]
    timed = [TOKENS * USUAL[1] / sum(beside_drafts[rows] for rows in ROWS[name]) for name in ROWS]
    assert speedups(made) == pytest.approx(timed)


def test_passes_at_a_long_context_are_counted_apart():
    long = {rows: 3 * seconds for rows, seconds in USUAL.items()}
    made = [pair("a", USUAL), pair("b", long, prompt_tokens=3400, gauge=USUAL[1])]
    assert speedups(made) == pytest.approx([true("a", USUAL), true("b", long)])


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([0.0, 0.2, 0.35]))
def test_a_machine_that_changes_its_pace_does_not_move_it(seed, slower_share):
    """Some of the pairs come at a slower pace; every pass and every gauge is off by some per cent."""
    random = np.random.default_rng(seed)
    names = [*ROWS] * 15
    slower = random.permutation(len(names)) < slower_share * len(names)
    made = [
        pair(
            *(name, SLOWER if slow else USUAL),
            noise=lambda: float(random.normal(1, 0.05)),
            gauge=(SLOWER if slow else USUAL)[1] * float(random.normal(1, 0.02)),
        )
        for name, slow in zip(names, slower, strict=True)
    ]
    costs = PassCosts(made)
    assert costs.pace.share == pytest.approx(1 - sum(slower) / len(names))
    total = summarize(made, costs)["total"]
    assert total["speedup"] == pytest.approx(float(np.prod([true(name, USUAL) for name in ROWS]) ** 0.25), rel=0.02)
    assert total["plain_tokens_per_second"] == pytest.approx(1 / USUAL[1], rel=0.02)
    if slower_share:
        assert costs.pace.spread == pytest.approx(SLOWER[1] / USUAL[1], rel=0.1)
        assert total["speedup_as_timed"] > 1.03 * total["speedup"]
    else:
        assert costs.pace.spread < 1.1


def test_passes_that_were_never_seen_at_the_usual_pace_gain_what_others_do():
    """Those of a long context, all of them made while the machine was slower."""
    long = {rows: 2 * seconds for rows, seconds in SLOWER.items()}
    made = [pair(name, costs) for name in ROWS for costs in (USUAL, USUAL, SLOWER)]
    made.append(pair("a", long, prompt_tokens=3400, gauge=SLOWER[1]))
    assert speedups(made)[-1] == pytest.approx(true("a", USUAL))


def test_passes_at_the_usual_pace_count_where_most_were_made_at_others():
    """Those of a long context, once at the usual pace, and more often while the machine was slower or faster."""
    faster = {rows: 0.6 * seconds for rows, seconds in USUAL.items()}
    paces = (USUAL, SLOWER, faster, faster, faster)
    made = [pair(name, costs) for name in ROWS for costs in (USUAL, USUAL, USUAL, SLOWER)]
    for costs in paces:
        long = {rows: 2 * seconds for rows, seconds in costs.items()}
        made.append(pair("c", long, prompt_tokens=3400, gauge=costs[1]))
    costs = PassCosts(made)
    for of in made[-len(paces) :]:
        assert costs.tokens_per_second(of.plain.stats, drafted=False) == pytest.approx(1 / (2 * USUAL[1]))
    assert speedups(made)[-len(paces) :] == pytest.approx([true("c", USUAL)] * len(paces))


def test_a_single_pass_at_another_pace_does_not_outweigh_a_few_at_the_usual_one():
    """The eight rows of "a" are passed over five times at the usual pace, and once, disturbed, at another."""
    made = [pair("a", USUAL), pair("c", USUAL), pair("c", SLOWER)]
    made += [pair("b", costs, prompt_tokens=3400) for costs in (USUAL, USUAL, SLOWER)]  # what a pace does to eight rows
    made[2].drafted.stats.passes.append(TargetPass(8, 2.0))
    made[2].drafted.stats.decode_seconds += 2.0
    assert speedups(made)[0] == pytest.approx(true("a", USUAL))


def test_the_peer_is_compared_at_the_usual_pace_too():
    made = [pair("a", USUAL, peer=100.0), pair("b", USUAL, peer=100.0), pair("c", SLOWER, peer=60.0)]
    assert summarize(made, PassCosts(made))["total"]["peer_tokens_per_second"] == 100.0
    elsewhere = [pair("a", USUAL), pair("b", USUAL), made[2]]
    assert summarize(elsewhere, PassCosts(elsewhere))["total"]["peer_tokens_per_second"] == 60.0


def test_an_answer_of_one_token_has_no_speed():
    nothing = answer([], USUAL, tokens=0)
    made = [
        Comparison(Prompt("list", "x"), nothing, nothing, None, {"plain": (0.005, 0.005), "drafted": (0.005, 0.005)})
    ]
    assert PassCosts(made).tokens_per_second(nothing.stats, drafted=True) == 0
    assert summarize(made, PassCosts(made))["total"]["speedup"] == 1.0
