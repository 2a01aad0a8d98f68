"""Prometheus metrics, under the names that users of vLLM know."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from outrider.cache import CachePool
from outrider.server.scheduler import Scheduler, Ticket

_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)


class Metrics:
    """Counts finished requests; gauges are read when asked for."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()

        def counter(name: str, what: str, labels: tuple[str, ...] = ()) -> Counter:
            return Counter(f"outrider_{name}", what, labels, registry=self._registry)

        self._finished = counter("request_success", "Requests that ended.", ("finished_reason",))
        self._prompt = counter("prompt_tokens", "Prompt tokens.")
        self._reused = counter("prefix_cache_hits", "Prompt tokens whose keys and values were there already.")
        self._looked_up = counter("prefix_cache_queries", "Prompt tokens that were looked for in the prefix cache.")
        self._generated = counter("generation_tokens", "Generated tokens.")
        self._drafts = counter("spec_decode_num_drafts", "Passes that verified a draft or could have.")
        self._drafted = counter("spec_decode_num_draft_tokens", "Drafted tokens.")
        self._accepted = counter("spec_decode_num_accepted_tokens", "Drafted tokens that were accepted.")
        self._by_depth = counter(
            "spec_decode_num_accepted_tokens_per_pos", "Accepted tokens by place in the draft.", ("position",)
        )
        self._gave_up = counter(
            "requests_given_up",
            "Requests refused or ended by a limit: full (no room to wait), queue, run, reader, body (took too long).",
            ("limit",),
        )
        self._first = Histogram(
            "outrider_time_to_first_token_seconds", "From arrival.", buckets=_SECONDS, registry=self._registry
        )
        self._each = Histogram(
            "outrider_time_per_output_token_seconds", "After the first.", buckets=_SECONDS, registry=self._registry
        )

        def gauge(name: str, what: str) -> Gauge:
            return Gauge(f"outrider_{name}", what, registry=self._registry)

        self._running = gauge("num_requests_running", "Requests in a pass.")
        self._waiting = gauge("num_requests_waiting", "Requests in the queue.")
        self._sequences = gauge("kv_cache_sequences_in_use", "Sequences of keys and values that requests hold.")
        self._kept = gauge("prefix_cache_sequences", "Finished sequences kept for their prefix.")
        self._kept_bytes = gauge("prefix_cache_bytes", "Memory that finished sequences take.")
        self._usage = gauge("prefix_cache_usage_perc", "That memory as a part of what it may be; 1 means all.")

    def finished(self, ticket: Ticket) -> None:
        """Counts a request that ended, or was cancelled."""
        request = ticket.request
        assert request is not None
        stats = request.stats
        self._finished.labels(request.finish_reason or "abort").inc()
        self._prompt.inc(stats.prompt_tokens)
        self._looked_up.inc(stats.prompt_tokens)
        self._reused.inc(stats.reused_tokens)
        self._generated.inc(len(request.answer))
        self._drafts.inc(stats.target_passes)
        self._drafted.inc(stats.drafted)
        self._accepted.inc(stats.accepted)
        for depth, count in enumerate(stats.accepted_by_depth):
            self._by_depth.labels(str(depth)).inc(count)
        if request.decoding:
            self._first.observe(request.started - ticket.arrived + stats.prefill_seconds)
        if stats.decoded_tokens:
            self._each.observe(stats.decode_seconds / stats.decoded_tokens)

    def gave_up(self, limit: str) -> None:
        """Counts a request that a limit refused or ended."""
        self._gave_up.labels(limit).inc()

    def text(self, scheduler: Scheduler, caches: CachePool) -> bytes:
        """What `GET /metrics` answers."""
        running, waiting = scheduler.counts
        self._running.set(running)
        self._waiting.set(waiting)
        self._sequences.set(caches.in_use)
        self._kept.set(caches.kept)
        self._kept_bytes.set(caches.kept_bytes)
        self._usage.set(caches.kept_bytes / caches.most_bytes if caches.most_bytes else 0.0)
        return generate_latest(self._registry)
