"""The metrics of all models of a server, as `GET /metrics` writes them."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import Metric, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from outrider.server.model_set import ModelSet


class _AllMetrics(Collector):
    """Where there are several models, each figure of one has its name as the label `model_name`."""

    def __init__(self, models: ModelSet) -> None:
        self._models = models

    def collect(self) -> Iterator[Metric]:
        """All metrics."""
        yield from self._models.host.metrics.registry.collect()
        slots, families = self._models.slots, dict[str, Metric]()
        for slot in slots:
            label = {"model_name": slot.name} if len(slots) > 1 else {}
            for metric in slot.metrics.collect(slot.service, slot.name, slot.adapters):
                family = families.setdefault(metric.name, Metric(metric.name, metric.documentation, metric.type))
                family.samples += [sample._replace(labels=label | sample.labels) for sample in metric.samples]
        yield from families.values()
        if len(slots) > 1:
            loaded = GaugeMetricFamily("outrider_model_loaded", "Whether a model is loaded.", labels=["model_name"])
            for slot in slots:
                loaded.add_metric([slot.name], slot.service is not None)
            yield loaded


def metrics_text(models: ModelSet) -> bytes:
    """The response."""
    return generate_latest(_AllMetrics(models))
