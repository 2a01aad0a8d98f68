"""The statistics, alone."""

from __future__ import annotations

from dataclasses import replace
from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outrider.bench.endpoint.answer import Answer, DraftCounts, Failure, FailureKind
from outrider.bench.endpoint.figures import (
    compare_texts,
    draft_figures,
    duration_range,
    first_difference,
    level_figures,
    ratio,
    ratios,
    spread,
)

seconds = st.floats(0.001, 100)
failures = st.builds(Failure, st.sampled_from(FailureKind), st.just("why"))


@st.composite
def answers(draw):
    first = draw(seconds)
    tokens = draw(st.integers(1, 500))
    return Answer(
        number=draw(st.integers(0, 50)),
        text=draw(st.text(max_size=8)),
        tokens=tokens,
        counted_by_server=draw(st.booleans()),
        first_seconds=first,
        last_seconds=first + draw(seconds),
        chunks=draw(st.integers(1, tokens)),
        failure=draw(st.none() | failures),
    )


@given(st.lists(seconds | st.none()))
def test_spread_lies_within_what_is_known(values):
    found, known = spread(values), [value for value in values if value is not None]
    if not known:
        assert found == {"median": None, "p95": None}
    else:
        assert found["median"] == pytest.approx(median(known))
        assert min(known) <= found["median"] <= found["p95"] <= max(known) * (1 + 1e-12)


def test_95_percent_lie_below_p95():
    assert spread(range(101)) == {"median": 50, "p95": 95}


@given(st.lists(answers()), seconds)
def test_every_answer_is_counted_once(given_answers, wall):
    found = level_figures(given_answers, wall)
    good = [answer for answer in given_answers if answer.failure is None]
    assert found["answered"] + sum(found["failures"].values()) == len(given_answers)
    assert found["output_tokens"] == sum(answer.tokens for answer in good)
    assert found["tokens_per_second"] * wall == pytest.approx(found["output_tokens"])
    assert (found["tokens_counted_by"] is None) == (not good)


@given(st.lists(answers(), min_size=1), seconds)
def test_failed_requests_change_no_latency(given_answers, wall):
    failed = [replace(answer, failure=Failure(FailureKind.REFUSED, "busy")) for answer in given_answers]
    alone, together = level_figures(given_answers, wall), level_figures([*given_answers, *failed], wall)
    for name in ("time_to_first_token_seconds", "time_per_output_token_seconds", "tokens_per_second"):
        assert alone[name] == together[name]
    assert together["failures"]["refused"] >= len(failed)


def test_time_per_token_is_spread_over_the_tokens_after_the_first():
    answer = Answer(0, tokens=5, first_seconds=1.0, last_seconds=3.0, chunks=3)
    assert answer.seconds_per_token == 0.5
    for unseen in (replace(answer, chunks=1), replace(answer, tokens=1), replace(answer, first_seconds=None)):
        assert unseen.seconds_per_token is None


@given(st.lists(answers(), min_size=1), seconds, st.floats(0.1, 10))
def test_an_arm_that_is_slower_by_a_factor_has_that_ratio(given_answers, wall, factor):
    slower = [
        replace(answer, first_seconds=answer.first_seconds * factor, last_seconds=answer.last_seconds * factor)
        for answer in given_answers
    ]
    found = ratios(level_figures(given_answers, wall), level_figures(slower, wall * factor))
    if any(answer.failure is None for answer in given_answers):
        assert found["tokens_per_second"] == pytest.approx(1 / factor)
        assert found["time_to_first_token_seconds"] == pytest.approx(factor)
        assert found["time_per_output_token_seconds"] in (None, pytest.approx(factor))
    else:
        assert set(found.values()) == {None}


def test_a_ratio_to_nothing_is_unknown():
    assert (ratio(1, 0), ratio(1, None), ratio(None, 1), ratio(1, 2)) == (None, None, None, 0.5)


@given(st.text(), st.text(), st.text())
def test_texts_are_equal_up_to_their_first_difference(start, a, b):
    place = first_difference(start + a, start + b)
    assert (start + a)[:place] == (start + b)[:place]
    assert place >= len(start)
    assert start + a == start + b or (start + a)[place : place + 1] != (start + b)[place : place + 1]


@given(st.lists(answers(), unique_by=lambda answer: answer.number), st.randoms())
def test_equal_texts_are_found_in_any_order(given_answers, random):
    shuffled = random.sample(given_answers, len(given_answers))
    good = [answer for answer in given_answers if answer.failure is None]
    found = compare_texts(given_answers, shuffled)
    assert found == {"compared": len(good), "equal": len(good), "first_difference": None}
    if good:
        changed = min(good, key=lambda answer: answer.number)
        other = [replace(answer, text=answer.text + "!") if answer is changed else answer for answer in shuffled]
        found = compare_texts(given_answers, other)
        assert found["equal"] == len(good) - 1
        assert found["first_difference"]["number"] == changed.number
        assert found["first_difference"]["position"] == len(changed.text)


def test_a_difference_is_shown_with_what_stands_around_it():
    a, b = Answer(4, text="x" * 100 + "abc"), Answer(4, text="x" * 100 + "ayc")
    assert compare_texts([a], [b])["first_difference"] == {
        "number": 4,
        "position": 101,
        "first": "x" * 19 + "abc",
        "second": "x" * 19 + "ayc",
    }


def test_only_answers_to_both_are_compared():
    failed = Answer(0, failure=Failure(FailureKind.CUT_OFF, "why"))
    assert compare_texts([Answer(0), Answer(1)], [failed, Answer(2)])["compared"] == 0


def test_rates_of_drafts():
    assert draft_figures("vLLM", DraftCounts(30, 12, 10)) == {
        "source": "vLLM",
        "drafted": 30,
        "accepted": 12,
        "acceptance_rate": 0.4,
        "drafted_per_pass": 3.0,
        "tokens_per_pass": 2.2,
    }
    undrafted = draft_figures("outrider", DraftCounts(0, 0, 10))
    assert (undrafted["acceptance_rate"], undrafted["tokens_per_pass"]) == (None, 1.0)
    unknown = draft_figures("llama.cpp", DraftCounts(4, 2, None))
    assert (unknown["acceptance_rate"], unknown["tokens_per_pass"]) == (0.5, None)


@given(seconds, st.lists(st.tuples(st.integers(1, 64), st.integers(1, 64)), min_size=1))
def test_clients_make_a_level_no_longer(one, levels):
    least, most = duration_range(one, levels)
    assert one * len(levels) <= least * (1 + 1e-9)
    assert least <= most * (1 + 1e-9)
    assert duration_range(one, [(1, requests) for _, requests in levels])[0] == pytest.approx(most)
