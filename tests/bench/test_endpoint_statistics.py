"""Figures of an endpoint follow from what its clients saw."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outrider.bench.endpoint.counters import drafting_between, read_metrics
from outrider.bench.endpoint.statistics import Answer, compare_texts, spread, summarize_level, together


def test_a_level_counts_tokens_over_the_time_of_all_its_requests():
    level = summarize_level(
        [
            Answer(0, 0.0, 3.0, first=1.0, last=3.0, tokens=5, counted=True),
            Answer(1, 1.0, 5.0, first=1.5, last=4.5, tokens=7, counted=True),
            Answer(2, 2.0, 6.0, failure="status 500: no"),
        ]
    )
    assert level["tokens_per_second"] == pytest.approx(12 / 6)
    assert level["failures"] == {"status 500: no": 1}
    assert level["first_token_seconds"] == {"median": 0.75, "p95": 1.0}
    assert level["seconds_per_token"] == {"median": 0.5, "p95": 0.5}
    assert level["tokens_counted_by_server"]


def test_an_answer_of_one_token_has_no_time_between_tokens():
    level = summarize_level([Answer(0, 0.0, 1.0, first=0.5, last=0.5, tokens=1)])
    assert level["seconds_per_token"] is None
    assert together([level])["seconds_per_token"] is None
    assert not level["tokens_counted_by_server"]


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=60))
def test_the_percentile_is_a_value_that_19_of_20_do_not_exceed(values):
    found = spread(values)
    assert found["p95"] in values
    assert sum(value <= found["p95"] for value in values) >= 0.95 * len(values)
    assert sum(value < found["p95"] for value in values) < 0.95 * len(values)
    assert found["median"] <= found["p95"]


@given(st.lists(st.tuples(st.integers(0, 9), st.text(max_size=2)), max_size=12), st.integers(0, 9))
def test_texts_are_compared_prompt_by_prompt(texts, changed):
    one = [Answer(prompt, 0, 1, text=text) for prompt, text in dict(texts).items()]
    other = [Answer(a.prompt, 0, 1, text=a.text + "!" * (a.prompt == changed)) for a in reversed(one)]
    found = compare_texts(one, other)
    assert found["compared"] == len(one)
    assert found["compared"] - found["same"] == sum(a.prompt == changed for a in one)
    assert ("first_difference" in found) == any(a.prompt == changed for a in one)


def test_a_failed_answer_is_not_compared():
    assert compare_texts([Answer(0, 0, 1, text="a")], [Answer(0, 0, 1, failure="x")]) == {"compared": 0, "same": 0}


@pytest.mark.parametrize("prefix", ["vllm:", "llamacpp:", "outrider_"])
def test_the_counters_of_drafting_are_known_by_their_common_names(prefix):
    def page(drafts, drafted, accepted):
        return "".join(
            f'# TYPE {prefix}spec_decode_{name} counter\n{prefix}spec_decode_{name}_total{{engine="0"}} {value}\n'
            for name, value in (
                ("num_drafts", drafts),
                ("num_draft_tokens", drafted),
                ("num_accepted_tokens", accepted),
            )
        )

    found = drafting_between(read_metrics(page(10, 40, 20)), read_metrics(page(20, 80, 50)))
    assert found["drafted"] == 40
    assert found["acceptance_rate"] == pytest.approx(0.75)
    assert found["accepted_per_draft"] == pytest.approx(3.0)


def test_sglangs_gauges_are_taken_as_they_are():
    page = "# TYPE sglang:spec_accept_length gauge\nsglang:spec_accept_length 2.5\n"
    assert drafting_between(read_metrics(page), read_metrics(page)) == {"accepted_length": 2.5}


@pytest.mark.parametrize("page", ["", "<html>no</html>", "# TYPE up gauge\nup 1\n", "x{ 3"])
def test_a_page_that_tells_nothing_of_drafting_is_nothing(page):
    assert read_metrics(page) is None
    assert drafting_between(None, None) is None
