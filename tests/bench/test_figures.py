"""A category's figures follow from its pairs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outrider.bench.figures import figures_of, summarize
from outrider.bench.pairs import Pair
from outrider.bench.prompt import Prompt
from outrider.engine.outputs import RequestOutput, RequestStats, TargetPass


def output(speed, tokens=(1, 2, 3), sources=(), verify_seconds=0.0, **stats):
    """An answer of 100 tokens at a speed; 50 passes take `verify_seconds` of the time."""
    passes = [TargetPass(2, verify_seconds / 50)] * 50
    made = RequestStats(decoded_tokens=100, decode_seconds=100 / speed, passes=passes, **stats)
    for source, depth, accepted in sources:
        made.count(source, depth, accepted)
        made.drafted, made.accepted = made.drafted + 1, made.accepted + accepted
    return RequestOutput((1,), tokens, "", "length", made)


def pair(prompt, plain, drafted, category="prose", peer=None, **more):
    return Pair(Prompt(category, prompt), output(plain), output(drafted, **more), peer)


def test_the_speedup_is_the_geometric_mean_of_the_pairs_as_timed():
    found = figures_of([pair("a", 100, 200), pair("b", 50, 400)])
    assert found["speedup"] == pytest.approx(4.0)
    assert found["interval"] == pytest.approx([2.0, 8.0])
    assert (found["prompts"], found["pairs"]) == (2, 2)


def test_a_prompt_with_more_pairs_counts_no_more():
    found = figures_of([pair("a", 100, 200), pair("a", 50, 100), pair("b", 100, 800)])
    assert found["speedup"] == pytest.approx(4.0)
    assert (found["prompts"], found["pairs"]) == (2, 3)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(1, 1e3), st.floats(1, 1e3)), min_size=1, max_size=9))
def test_the_speedup_is_the_quotient_of_the_speeds(timed):
    found = figures_of([pair(*of) for of in timed])
    assert found["speedup"] == pytest.approx(found["mtp_tokens_per_second"] / found["plain_tokens_per_second"])
    low, high = found["interval"]
    assert low <= found["speedup"] * (1 + 1e-9)
    assert found["speedup"] <= high * (1 + 1e-9)


def test_the_peer_is_compared_in_pairs_too():
    found = figures_of([pair("a", 100, 200, peer=50.0), pair("b", 100, 800, peer=100.0)])
    assert found["peer_tokens_per_second"] == pytest.approx(5000**0.5)
    assert found["over_peer"] == pytest.approx(32**0.5)
    assert found["over_peer_interval"] == pytest.approx([4.0, 8.0])
    assert "over_peer" not in figures_of([pair("a", 100, 200)])


def test_an_answer_of_one_token_has_no_speed():
    nothing = RequestOutput((1,), (1,), "", "stop", RequestStats())
    alone = Pair(Prompt("list", "x"), nothing, nothing)
    assert (figures_of([alone])["speedup"], figures_of([alone])["identical"]) == (1.0, True)
    assert figures_of([alone])["time_split"] == {"draft": 0.0, "verify": 0.0, "rest": 0.0}
    assert figures_of([alone, pair("a", 100, 300)])["speedup"] == pytest.approx(3.0)


def test_an_answer_that_changes_from_round_to_round_is_not_identical():
    other = Pair(Prompt("prose", "a"), output(100, (1, 2, 4)), output(200, (1, 2, 4)))
    assert other.identical
    assert figures_of([pair("a", 100, 200), pair("a", 100, 200)])["identical"]
    assert not figures_of([pair("a", 100, 200), other])["identical"]


def test_tokens_that_differ_show_in_their_category():
    found = summarize([pair("a", 100, 200), pair("b", 100, 200, category="code", tokens=(1, 2))])
    assert found["categories"]["prose"]["identical"] is True
    assert found["categories"]["code"]["identical"] is False
    assert found["total"]["identical"] is False


@given(st.lists(st.tuples(st.sampled_from(["mtp", "lookup"]), st.integers(0, 3), st.booleans()), max_size=30))
def test_drafted_and_accepted_add_up_over_sources(booked):
    found = summarize([pair("a", 100, 200, sources=booked)])
    by_source, total = found["total"]["by_source"], found["total"]
    assert found["draft_sources"] == sorted({source for source, *_ in booked})
    assert sum(of["drafted"] for of in by_source.values()) == len(booked)
    assert sum(of["accepted"] for of in by_source.values()) == sum(accepted for *_, accepted in booked)
    assert total["acceptance_rate"] == pytest.approx(sum(a for *_, a in booked) / max(len(booked), 1))


def test_shares_of_time_add_up():
    split = figures_of([pair("a", 100, 200, draft_seconds=0.1, verify_seconds=0.35)])["time_split"]
    assert split == pytest.approx({"draft": 0.2, "verify": 0.7, "rest": 0.1})


def test_times_to_the_first_token_are_medians():
    pairs = [pair(name, 100, 200) for name in "abc"]
    for of, seconds in zip(pairs, (2.0, 4.0, 9.0), strict=True):
        of.plain.stats.prefill_seconds, of.drafted.stats.prefill_seconds = seconds, seconds + 1.0
    assert figures_of(pairs)["first_token_seconds"] == {"plain": 4.0, "mtp": 5.0}
