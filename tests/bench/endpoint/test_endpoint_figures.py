"""The statistics, alone."""

from __future__ import annotations

from dataclasses import replace
from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outrider.bench.endpoint.measure import compare_texts, level_figures, ratios
from outrider.bench.endpoint.request import Answer

seconds = st.floats(0.001, 100)
failures = st.sampled_from(["HTTP 429", "timeout", "cut off"])


@st.composite
def answers(draw):
    first = draw(seconds)
    chunks = draw(st.lists(st.text(min_size=1, max_size=4), min_size=1, max_size=9))
    return Answer(
        number=draw(st.integers(0, 50)),
        chunks=chunks,
        usage=draw(st.none() | st.integers(len(chunks), 500)),
        first_seconds=first,
        last_seconds=first + draw(seconds),
        failure=draw(st.none() | failures),
    )


def test_medians_and_95th_percentiles():
    found = level_figures([Answer(i, ["x"], first_seconds=float(i)) for i in range(101)], 1.0)
    assert found["time_to_first_token_seconds"] == {"median": 50, "p95": 95}
    assert found["time_per_output_token_seconds"] == {"median": None, "p95": None}  # each came in one chunk


@given(st.lists(answers()), seconds)
def test_every_answer_is_counted_once(given_answers, wall):
    found = level_figures(given_answers, wall)
    good = [answer for answer in given_answers if answer.failure is None]
    assert found["answered"] + sum(found["failures"].values()) == len(given_answers)
    assert found["output_tokens"] == sum(answer.tokens for answer in good)
    assert found["tokens_per_second"] * wall == pytest.approx(found["output_tokens"])
    assert (found["tokens_counted_by"] is None) == (not good)
    if good:
        expected = median(answer.first_seconds for answer in good)
        assert found["time_to_first_token_seconds"]["median"] == pytest.approx(expected)


@given(st.lists(answers(), min_size=1), seconds)
def test_failed_requests_change_no_latency(given_answers, wall):
    failed = [replace(answer, failure="HTTP 429") for answer in given_answers]
    alone, together = level_figures(given_answers, wall), level_figures([*given_answers, *failed], wall)
    for name in ("time_to_first_token_seconds", "time_per_output_token_seconds", "tokens_per_second"):
        assert alone[name] == together[name]
    assert together["failures"]["HTTP 429"] >= len(failed)


def test_time_per_token_is_spread_over_the_tokens_after_the_first():
    answer = Answer(0, ["a", "b", "c"], usage=5, first_seconds=1.0, last_seconds=3.0)
    assert answer.seconds_per_token == 0.5
    assert replace(answer, usage=None).seconds_per_token == 1.0
    for unseen in (replace(answer, chunks=["abc"]), replace(answer, usage=1), replace(answer, first_seconds=None)):
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


@given(st.lists(answers(), unique_by=lambda answer: answer.number), st.randoms())
def test_equal_texts_are_found_in_any_order(given_answers, random):
    shuffled = random.sample(given_answers, len(given_answers))
    good = [answer for answer in given_answers if answer.failure is None]
    found = compare_texts(given_answers, shuffled)
    assert found == {"compared": len(good), "equal": len(good), "first_difference": None}
    if good:
        changed = min(good, key=lambda answer: answer.number)
        other = [replace(of, chunks=[*of.chunks, "!"]) if of is changed else of for of in shuffled]
        found = compare_texts(given_answers, other)
        assert found["equal"] == len(good) - 1
        assert found["first_difference"]["number"] == changed.number
        assert found["first_difference"]["position"] == len(changed.text)


def test_a_difference_is_located():
    a, b = Answer(4, ["x" * 100, "abc"]), Answer(4, ["x" * 100, "ayc"])
    assert compare_texts([a], [b])["first_difference"] == {"number": 4, "position": 101}


def test_only_answers_to_both_are_compared():
    assert compare_texts([Answer(0), Answer(1)], [Answer(0, failure="cut off"), Answer(2)])["compared"] == 0
