"""What servers report of their drafts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outrider.bench.endpoint.measure import drafting
from outrider.bench.endpoint.request import Answer, timings_of
from outrider.bench.endpoint.server import DraftCounts, Metrics, parse_metrics


def vllm(drafts, drafted, accepted):
    """As vLLM writes it, for two engines."""
    return "".join(
        f"# HELP vllm:spec_decode_num_{name} Number.\n# TYPE vllm:spec_decode_num_{name} counter\n"
        f'vllm:spec_decode_num_{name}_total{{engine="0",model_name="m"}} {float(value - 1)}\n'
        f'vllm:spec_decode_num_{name}_total{{engine="1",model_name="m"}} 1.0\n'
        f'vllm:spec_decode_num_{name}_created{{engine="0",model_name="m"}} 1.7e+09\n'
        for name, value in (("drafts", drafts), ("draft_tokens", drafted), ("accepted_tokens", accepted))
    )


SGLANG = """# HELP sglang:spec_accept_length The average acceptance length of speculative decoding.
# TYPE sglang:spec_accept_length gauge
sglang:spec_accept_length{model_name="m",tp_rank="0"} 2.0
sglang:spec_accept_length{model_name="m",tp_rank="1"} 3.0
# TYPE sglang:spec_accept_rate gauge
sglang:spec_accept_rate{model_name="m",tp_rank="0"} 0.5
"""


def test_counters_of_vllm_are_added_up_over_engines():
    assert parse_metrics(vllm(10, 30, 12)) == Metrics("vLLM", DraftCounts(30, 12, 10))


@pytest.mark.parametrize(("source", "prefix"), [("outrider", "outrider_"), ("llama.cpp", "llamacpp:")])
def test_others_count_under_the_same_names(source, prefix):
    text = vllm(10, 30, 12).replace("vllm:", prefix)
    assert parse_metrics(text) == Metrics(source, DraftCounts(30, 12, 10))


def test_gauges_of_sglang():
    assert parse_metrics(SGLANG) == Metrics("SGLang", length=2.5, rate=0.5)
    assert parse_metrics(SGLANG.replace("2.0", "0.0").replace("3.0", "0.0")) is None


@pytest.mark.parametrize("text", ["", "<html>no</html>", '{"status": "ok"}', "process_cpu_seconds_total 4.0\n"])
def test_a_text_without_them_has_none(text):
    assert parse_metrics(text) is None


@given(st.text())
def test_any_text_can_be_read(text):
    assert parse_metrics(text) is None


@pytest.mark.parametrize(
    ("timings", "counts"),
    [
        ({"predicted_n": 10, "draft_n": 8, "draft_n_accepted": 5}, DraftCounts(8, 5, 4)),
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
    assert drafting([(before, after)], [])["drafted"] == 15
    assert drafting([(after, before)], []) is None
    assert drafting([(None, None)], []) is None


def test_turns_are_added_up():
    readings = [parse_metrics(vllm(*values)) for values in ((1, 1, 1), (5, 13, 7), (100, 100, 100), (106, 118, 112))]
    figures = drafting([(readings[0], readings[1]), (readings[2], readings[3])], [])
    assert figures == {
        "source": "vLLM",
        "drafted": 30,
        "accepted": 18,
        "acceptance_rate": 0.6,
        "tokens_per_pass": 2.8,
    }


def test_gauges_are_read_after_the_level():
    figures = drafting([(None, parse_metrics(SGLANG))], [])
    assert (figures["source"], figures["acceptance_rate"], figures["tokens_per_pass"]) == ("SGLang", 0.5, 2.5)


def test_timings_are_added_up_over_answers():
    answers = [Answer(0, draft=DraftCounts(8, 5, 4)), Answer(1), Answer(2, draft=DraftCounts(4, 4, 2))]
    figures = drafting([(None, None)], answers)
    assert (figures["source"], figures["acceptance_rate"], figures["tokens_per_pass"]) == ("llama.cpp", 0.75, 2.5)
    assert drafting([(None, None)], [Answer(0)]) is None
