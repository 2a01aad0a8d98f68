"""Prometheus metrics."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric

from outrider.backends import cpu
from outrider.server.scheduler import Job
from outrider.server.vllm_names import WithVllmNames

if TYPE_CHECKING:
    from outrider.server.service import Service

_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)


class Metrics:
    """Counts the finished requests of one model, over all its loads; gauges are read on demand."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()

        def counter(name: str, what: str, labels: tuple[str, ...] = ()) -> Counter:
            return Counter(f"outrider_{name}", what, labels, registry=self._registry)

        self._finished = counter("request_success", "Requests that ended.", ("finished_reason",))
        self._prompt = counter("prompt_tokens", "Prompt tokens.")
        self._reused = counter("prefix_cache_hits", "Prompt tokens found in the prefix cache.")
        self._without_state = counter(
            "prefix_cache_hits_without_state", "Of these, the tokens of which a drafter had kept nothing."
        )
        self._looked_up = counter("prefix_cache_queries", "Prompt tokens looked up in the prefix cache.")
        self._generated = counter("generation_tokens", "Generated tokens.")
        self._drafts = counter("spec_decode_num_drafts", "Decode passes.")
        self._drafted = counter("spec_decode_num_draft_tokens", "Drafted tokens.")
        self._accepted = counter("spec_decode_num_accepted_tokens", "Drafted tokens that were accepted.")
        self._by_depth = counter(
            "spec_decode_num_accepted_tokens_per_pos", "Accepted tokens by position in the draft.", ("position",)
        )

        def seconds(name: str, what: str) -> Histogram:
            return Histogram(f"outrider_{name}_seconds", what, buckets=_SECONDS, registry=self._registry)

        self._first = seconds("time_to_first_token", "From arrival to the first token.")
        self._each = seconds("time_per_output_token", "Decode time per token after the first.")

        def gauge(name: str, what: str, labels: tuple[str, ...] = ()) -> Gauge:
            return Gauge(f"outrider_{name}", what, labels, registry=self._registry)

        self._running = gauge("num_requests_running", "Requests in the batch.")
        self._waiting = gauge("num_requests_waiting", "Requests in the queue.")
        self._sequences = gauge("kv_cache_sequences_in_use", "Key-value cache sequences of running requests.")
        self._kv_usage = gauge("kv_cache_usage_perc", "Fraction of the key-value memory that running requests hold.")
        self._kv_config = gauge(
            "cache_config_info",
            "Positions of a page of keys and values, and the pages that fit into the memory.",
            ("block_size", "num_gpu_blocks"),
        )
        self._kept = gauge("prefix_cache_pages", "Pages of 128 positions in the prefix cache that no request uses.")
        self._kept_bytes = gauge("prefix_cache_bytes", "Memory of these pages.")
        self._usage = gauge("prefix_cache_usage_perc", "Used fraction of the prefix cache's memory, 0 to 1.")

    def finished(self, job: Job) -> None:
        """Counts a request that finished, failed or was cancelled."""
        request = job.request
        assert request is not None
        stats = request.stats
        self._finished.labels(request.finish_reason or "abort").inc()
        self._prompt.inc(stats.prompt_tokens)
        self._looked_up.inc(stats.prompt_tokens)
        self._reused.inc(stats.reused_tokens)
        self._without_state.inc(stats.reused_without_state)
        self._generated.inc(len(request.answer))
        self._drafts.inc(stats.target_passes)
        self._drafted.inc(stats.drafted)
        self._accepted.inc(stats.accepted)
        for depth, count in enumerate(stats.accepted_by_depth):
            self._by_depth.labels(str(depth)).inc(count)
        if request.decoding:
            self._first.observe(request.started - job.arrived + stats.prefill_seconds)
        if stats.decoded_tokens:
            self._each.observe(stats.decode_seconds / stats.decoded_tokens)

    def collect(self, service: Service | None, model: str, adapters: Sequence[str]) -> Iterator[Metric]:
        """All of them, of a model that is loaded or not. Model and adapters: see `WithVllmNames`."""
        running, waiting = (0, 0) if service is None else service.scheduler.counts
        self._running.set(running)
        self._waiting.set(waiting)
        caches = None if service is None else service.parts.caches
        self._sequences.set(0 if caches is None else caches.in_use)
        self._kv_usage.set(0 if caches is None else caches.usage)
        self._kept.set(0 if caches is None else caches.kept)
        self._kept_bytes.set(0 if caches is None else caches.kept_bytes)
        self._usage.set(caches.kept_bytes / caches.most_bytes if caches is not None and caches.most_bytes else 0.0)
        self._kv_config.clear()
        if caches is not None:
            self._kv_config.labels(str(cpu.PAGE_POSITIONS), str(caches.most_pages)).set(1)
        return WithVllmNames(self._registry, model, adapters).collect()


class LimitMetrics:
    """Counts what the limits of the server ended, whatever model it was for."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._exceeded = Counter(
            "outrider_limit_exceeded",
            "Requests that a limit ended: full (queue length), or the time limits queue, run, reader, body.",
            ("limit",),
            registry=self.registry,
        )

    def exceeded(self, limit: str) -> None:
        """Counts a request that a limit rejected or ended."""
        self._exceeded.labels(limit).inc()
