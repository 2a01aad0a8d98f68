"""What servers report of their drafts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outrider.bench.endpoint.measure import draft_figures
from outrider.bench.endpoint.request import timings_of
from outrider.bench.endpoint.server import DraftCounts, parse_metrics


def vllm(drafts, drafted, accepted):
    """As vLLM writes it, for two engines."""
    return "".join(
        f"# HELP vllm:spec_decode_num_{name} Number.\n# TYPE vllm:spec_decode_num_{name} counter\n"
        f'vllm:spec_decode_num_{name}_total{{engine="0",model_name="m"}} {float(value - 1)}\n'
        f'vllm:spec_decode_num_{name}_total{{engine="1",model_name="m"}} 1.0\n'
        f'vllm:spec_decode_num_{name}_created{{engine="0",model_name="m"}} 1.7e+09\n'
        for name, value in (("drafts", drafts), ("draft_tokens", drafted), ("accepted_tokens", accepted))
    )


def test_counters_of_vllm_are_added_up_over_engines():
    assert parse_metrics(vllm(10, 30, 12)) == DraftCounts("vLLM", 30, 12, 10)


@pytest.mark.parametrize(("source", "prefix"), [("outrider", "outrider_"), ("llama.cpp", "llamacpp:")])
def test_others_count_under_the_same_names(source, prefix):
    text = vllm(10, 30, 12).replace("vllm:", prefix)
    assert parse_metrics(text) == DraftCounts(source, 30, 12, 10)


@pytest.mark.parametrize("text", ["", "<html>no</html>", '{"status": "ok"}', "process_cpu_seconds_total 4.0\n"])
def test_a_text_without_them_has_none(text):
    assert parse_metrics(text) is None


@given(st.text())
def test_any_text_can_be_read(text):
    assert parse_metrics(text) is None


@pytest.mark.parametrize(
    ("timings", "counts"),
    [
        ({"predicted_n": 10, "draft_n": 8, "draft_n_accepted": 5}, DraftCounts("llama.cpp", 8, 5, 4)),
        ({"draft_n": 8, "draft_n_accepted": 5}, None),
        ({"predicted_n": 10}, None),
        ({"predicted_n": "10", "draft_n": "8", "draft_n_accepted": []}, None),
        ([], None),
        (None, None),
    ],
)
def test_timings(timings, counts):
    assert timings_of(timings) == counts


def test_a_server_that_was_restarted_has_no_figures():
    before, after = parse_metrics(vllm(10, 30, 12)), parse_metrics(vllm(15, 45, 22))
    assert after.since(before) == DraftCounts("vLLM", 15, 10, 5)
    assert before.since(after) is None


def test_turns_and_answers_are_added_up():
    assert draft_figures([DraftCounts("vLLM", 12, 6, 4), DraftCounts("vLLM", 18, 12, 6)]) == {
        "source": "vLLM",
        "drafted": 30,
        "accepted": 18,
        "acceptance_rate": 0.6,
        "tokens_per_pass": 2.8,
    }
    assert draft_figures([]) is None
    nothing = draft_figures([DraftCounts("outrider", 0, 0, 0)])
    assert (nothing["acceptance_rate"], nothing["tokens_per_pass"]) == (None, None)
