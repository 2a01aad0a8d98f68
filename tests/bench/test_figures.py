"""A category's figures follow from its prompts'."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from outrider.bench.comparison import Comparison
from outrider.bench.figures import summarize as summarize_with
from outrider.bench.pass_costs import PassCosts
from outrider.bench.prompt import Prompt
from outrider.engine.outputs import RequestOutput, RequestStats, TargetPass

GAUGES = {"plain": (0.005, 0.005), "drafted": (0.005, 0.005)}


def summarize(comparisons):
    return summarize_with(comparisons, PassCosts(comparisons))


def output(speed, tokens=(1, 2, 3), sources=(), verify_seconds=None, **stats):
    """An answer of 100 tokens, all of whose time goes where no pass has it, but for `verify_seconds`."""
    passes = [] if verify_seconds is None else [TargetPass(2, verify_seconds / 50)] * 50
    made = RequestStats(decoded_tokens=100, decode_seconds=100 / speed, passes=passes, **stats)
    for source, depth, accepted in sources:
        made.count(source, depth, accepted)
        made.drafted, made.accepted = made.drafted + 1, made.accepted + accepted
    return RequestOutput((1,), tokens, "", "length", made)


def comparison(prompt, plain, drafted, category="prose", **more):
    return Comparison(Prompt(category, prompt), output(plain), output(drafted, **more), None, GAUGES)


def test_the_time_to_the_first_token_is_that_of_prompts_that_were_computed():
    computed = [comparison("a", 100, 200), comparison("b", 100, 200)]
    for of, seconds in zip(computed, (2.0, 4.0), strict=True):
        of.plain.stats.prefill_seconds, of.drafted.stats.prefill_seconds = seconds, seconds + 1.0
    cached = [comparison("a", 100, 200), comparison("b", 100, 200)] * 2
    for of in cached:
        for stats in (of.plain.stats, of.drafted.stats):
            stats.prefill_seconds, stats.reused_tokens = 0.01, 999
    assert summarize([*computed, *cached])["total"]["first_token_seconds"] == {"plain": 3.0, "mtp": 4.0}
    # A short one is computed in every round, and is one prompt all the same.
    short = [comparison("c", 100, 200) for _ in range(5)]
    for of, seconds in zip(short, (0.1, 0.2, 0.3, 0.4, 0.5), strict=True):
        of.plain.stats.prefill_seconds = of.drafted.stats.prefill_seconds = seconds
    found = summarize([*computed, *short, *cached])
    assert found["total"]["first_token_seconds"] == {"plain": 2.0, "mtp": 3.0}
    found = summarize([computed[0], *short, *cached[::2]])
    assert found["total"]["first_token_seconds"] == pytest.approx({"plain": (2.0 + 0.3) / 2, "mtp": (3.0 + 0.3) / 2})


def test_an_answer_that_changes_from_round_to_round_is_not_identical():
    same, other = comparison("a", 100, 200), comparison("a", 100, 200)
    for answer in (other.plain, other.drafted):
        object.__setattr__(answer, "token_ids", (1, 2, 4))
    assert other.identical
    assert summarize([same, same, comparison("b", 100, 200)])["total"]["identical"]
    assert not summarize([same, other, comparison("b", 100, 200)])["total"]["identical"]


def test_a_speedup_is_the_geometric_mean_of_rounds_and_of_prompts():
    found = summarize(
        [comparison("a", 100, 200), comparison("a", 50, 100), comparison("a", 100, 250), comparison("b", 100, 800)]
    )
    of_a = (2.0 * 2.0 * 2.5) ** (1 / 3)
    assert found["total"]["speedup_range"] == pytest.approx([of_a, 8.0])
    assert found["total"]["speedup"] == pytest.approx((of_a * 8.0) ** 0.5)
    assert found["total"]["prompts"] == 2


def test_how_far_measuring_again_goes_is_known_from_the_rounds():
    random = np.random.default_rng(5)
    levels = {"a": 1.5, "b": 2.0, "c": 4.0}
    found = [
        summarize(
            [comparison(name, 100, 100 * of * np.exp(random.normal(0, 0.08))) for name, of in 2 * [*levels.items()]]
        )["total"]
        for _ in range(400)
    ]
    goes = np.std([np.log(total["speedup"]) for total in found])
    assert np.sqrt(np.mean([total["speedup_error"] ** 2 for total in found])) == pytest.approx(goes, rel=0.15)
    assert goes == pytest.approx(0.08 / 6**0.5, rel=0.15)


def test_one_round_does_not_tell_how_far_measuring_again_goes():
    found = summarize([comparison("a", 100, 200), comparison("b", 100, 300)])
    assert found["total"]["speedup_error"] is None


def test_an_answer_of_one_token_counts_as_no_gain():
    nothing = RequestOutput((1,), (1,), "", "stop", RequestStats())
    found = summarize([Comparison(Prompt("list", "x"), nothing, nothing, None, GAUGES)])
    assert found["total"]["speedup"] == 1.0
    assert found["total"]["time_split"] == {"draft": 0.0, "verify": 0.0, "rest": 0.0}


@given(st.lists(st.tuples(st.sampled_from(["mtp", "lookup"]), st.integers(0, 3), st.booleans()), max_size=30))
def test_what_sources_and_depths_had_accepted_adds_up(booked):
    total = summarize([comparison("a", 100, 200, sources=booked)])["total"]
    by_source = total["by_source"]
    assert sum(of["drafted"] for of in by_source.values()) == len(booked)
    assert sum(of["accepted"] for of in by_source.values()) == sum(accepted for *_, accepted in booked)
    assert total["acceptance_rate"] == pytest.approx(sum(a for *_, a in booked) / max(len(booked), 1))


def test_shares_of_time_add_up():
    split = summarize([comparison("a", 100, 200, draft_seconds=0.1, verify_seconds=0.35)])["total"]["time_split"]
    assert split == pytest.approx({"draft": 0.2, "verify": 0.7, "rest": 0.1})


def test_other_tokens_are_told_by_category():
    found = summarize([comparison("a", 100, 200), comparison("b", 100, 200, category="code", tokens=(1, 2))])
    assert found["categories"]["prose"]["identical"] is True
    assert found["categories"]["code"]["identical"] is False
    assert found["total"]["identical"] is False
