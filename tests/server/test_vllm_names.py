"""Routers and autoscalers that read vLLM's metrics find the same figures under its names."""

from __future__ import annotations

import httpx
from prometheus_client.parser import text_string_to_metric_families
from serving import one_model, running, serving

from outrider.bench.endpoint.server import parse_metrics

LONG = {"prompt": "x" * 200, "max_tokens": 250, "ignore_eos": True, "drafting": "off", "stream": True}
LABELS = {"model_name": "tiny", "engine": "0"}


def samples(base):
    text = httpx.get(f"{base}/metrics").text
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(found, name, **labels):
    return found[(name, frozenset(labels.items()))]


def test_the_figures_are_the_same_under_both_names(client, url):
    client.completions.create(model="tiny", prompt="abab" * 10, max_tokens=20, temperature=0)
    found = samples(url)
    assert value(found, "vllm:generation_tokens_total", **LABELS) >= 20
    ours = [name for name, _ in found if name.startswith("outrider_spec_decode") and name.endswith("_total")]
    assert {f"outrider_spec_decode_num_{what}_total" for what in ("drafts", "draft_tokens", "accepted_tokens")} <= {
        *ours
    }
    ours += [f"outrider_{name}" for name in ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc")]
    ours += [f"outrider_prefix_cache_{name}_total" for name in ("queries", "hits")]
    ours += ["outrider_time_to_first_token_seconds_bucket", "outrider_request_success_total"]
    for name, labels in [key for key in found if key[0] in ours]:
        theirs = name.replace("outrider_", "vllm:"), labels | frozenset(LABELS.items())
        assert found[theirs] == found[(name, labels)], theirs
    assert value(found, "vllm:gpu_cache_usage_perc", **LABELS) == value(found, "vllm:kv_cache_usage_perc", **LABELS)


def test_counters_of_drafts_are_read_once(client, url):
    client.completions.create(model="tiny", prompt="abab" * 10, max_tokens=20, temperature=0)
    counts = parse_metrics(httpx.get(f"{url}/metrics").text)
    assert counts.source == "outrider"
    assert counts.drafted == value(samples(url), "outrider_spec_decode_num_draft_tokens_total")


def test_the_memory_in_use_grows_with_running_requests_alone(slow):
    with serving(slow, running=1, waiting=4) as (base, _):
        before = value(samples(base), "vllm:kv_cache_usage_perc", **LABELS)
        assert before == 0
        with httpx.stream("POST", f"{base}/v1/completions", json=LONG) as first:
            lines = first.iter_lines()
            next(lines)
            with httpx.stream("POST", f"{base}/v1/completions", json=LONG):
                found = samples(base)
        pages = [dict(labels)["num_gpu_blocks"] for name, labels in found if name == "vllm:cache_config_info"]
        assert (
            value(found, "vllm:num_requests_running", **LABELS),
            value(found, "vllm:num_requests_waiting", **LABELS),
        ) == (1, 1)
        used = value(found, "vllm:kv_cache_usage_perc", **LABELS) * int(pages[0])
        assert 0.9 < used < 3.1, "1 to 3 pages: up to 200 positions and one pass"


def test_adapters_are_listed(served_llm):
    models = one_model(served_llm)
    with running(models) as base:
        assert not [name for name, _ in samples(base) if name == "vllm:lora_requests_info"]
        models.slots[0].adapters = ("sql", "rhyme")
        (about,) = [dict(labels) for name, labels in samples(base) if name == "vllm:lora_requests_info"]
    assert about == {"max_lora": "2", "running_lora_adapters": "sql,rhyme", "waiting_lora_adapters": ""}
