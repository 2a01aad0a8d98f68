"""Metrics under vLLM's names too, for the routers, autoscalers and dashboards that read those."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

_OURS, _THEIRS = "outrider_", "vllm:"
_SAME = (
    *("num_requests_running", "num_requests_waiting", "cache_config_info", "request_success"),
    *("prefix_cache_queries", "prefix_cache_hits", "prompt_tokens", "generation_tokens", "time_to_first_token_seconds"),
    *("spec_decode_num_drafts", "spec_decode_num_draft_tokens"),
    *("spec_decode_num_accepted_tokens", "spec_decode_num_accepted_tokens_per_pos"),
)
_NAMES = {name: (name,) for name in _SAME} | {
    "kv_cache_usage_perc": ("kv_cache_usage_perc", "gpu_cache_usage_perc"),  # today's, and that of older readers
    "time_per_output_token_seconds": ("request_time_per_output_token_seconds",),
}
"""Our name -> vLLM's."""


class WithVllmNames(Collector):
    """The metrics of a registry, and those that vLLM has too once more as it writes them.

    Args:
        model: its name in the API.
        adapters: all of them are loaded, so a request for any may go to any replica.
    """

    def __init__(self, registry: CollectorRegistry, model: str, adapters: Sequence[str]) -> None:
        self._registry, self._adapters = registry, adapters
        self._labels = {"model_name": model, "engine": "0"}

    def collect(self) -> Iterator[Metric]:
        """All metrics."""
        for metric in self._registry.collect():
            yield metric
            for name in _NAMES.get(metric.name.removeprefix(_OURS), ()):
                yield self._renamed(metric, _THEIRS + name)
        if self._adapters:
            yield self._adapter_info()

    def _renamed(self, metric: Metric, name: str) -> Metric:
        renamed = Metric(name, metric.documentation, metric.type)
        for sample in metric.samples:
            labels = {**self._labels, **sample.labels}
            renamed.samples.append(Sample(name + sample.name.removeprefix(metric.name), labels, sample.value))
        return renamed

    def _adapter_info(self) -> Metric:
        """What the Gateway API's inference extension prescribes; the value is the time."""
        about = {
            "max_lora": str(len(self._adapters)),
            "running_lora_adapters": ",".join(self._adapters),
            "waiting_lora_adapters": "",
        }
        info = GaugeMetricFamily(f"{_THEIRS}lora_requests_info", "LoRA adapters.", labels=list(about))
        info.add_metric(list(about.values()), time.time())
        return info
