"""What servers publish of their drafting at `/metrics`.

vLLM, llama.cpp's server and outrider count drafts, drafted and accepted tokens under the same names behind a prefix of
their own; SGLang has gauges of the mean accepted length and rate instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

_COUNTERS = {
    "drafts": "spec_decode_num_drafts_total",
    "drafted": "spec_decode_num_draft_tokens_total",
    "accepted": "spec_decode_num_accepted_tokens_total",
}
_GAUGES = {"accepted_length": "sglang:spec_accept_length", "acceptance_rate": "sglang:spec_accept_rate"}


@dataclass(frozen=True)
class Published:
    """One look at a server's metrics: counters, added up over their labels, and gauges."""

    counters: Mapping[str, float]
    gauges: Mapping[str, float]


def read_metrics(text: str) -> Published | None:
    """What a page of metrics says of drafting; None if it says nothing, or is no such page."""
    counters, gauges = dict[str, float](), dict[str, float]()
    try:
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                for key, name in _COUNTERS.items():
                    if sample.name.endswith(name):
                        counters[key] = counters.get(key, 0.0) + sample.value
                for key, name in _GAUGES.items():
                    if sample.name == name:
                        gauges[key] = sample.value
    except ValueError:
        return None
    return Published(counters, gauges) if counters or gauges else None


def drafting_between(before: Published | None, after: Published | None) -> dict[str, Any] | None:
    """What was drafted between two looks; None where that is not published."""
    if before is None or after is None:
        return None
    found: dict[str, Any] = {key: after.counters[key] - before.counters.get(key, 0.0) for key in after.counters}
    found |= after.gauges
    if found.get("drafted"):
        found["acceptance_rate"] = found.get("accepted", 0.0) / found["drafted"]
    if found.get("drafts"):
        found["accepted_per_draft"] = found.get("accepted", 0.0) / found["drafts"]
    return found
