"""The measured servers: their addresses, the fields of every request, and what they report of their drafts."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import httpx
from prometheus_client.parser import text_string_to_metric_families

from outrider.errors import UsageError

_PREFIXES = {"outrider": "outrider_spec_decode", "vLLM": "vllm:spec_decode", "llama.cpp": "llamacpp:spec_decode"}
"""Server -> how the names of its draft counters in `/metrics` begin. outrider has them under vLLM's names too."""


@dataclass(frozen=True)
class Arm:
    """One side of a comparison.

    Args:
        name: "A" or "B".
        base: the URL up to and with `/v1`.
        chat: whether prompts go to the chat route as a user's turn, else to the completion route.
        model, max_tokens, temperature: of every request.
        extra: further fields of every request's body, which take precedence; null removes a field.
    """

    name: str
    base: str
    chat: bool
    model: str
    max_tokens: int
    temperature: float
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def address(self) -> str:
        """The route of the requests."""
        return f"{self.base}/chat/completions" if self.chat else f"{self.base}/completions"

    def body(self, prompt: str) -> dict[str, Any]:
        """Of one request."""
        body: dict[str, Any] = {"model": self.model, "max_tokens": self.max_tokens, "temperature": self.temperature}
        body |= {"messages": [{"role": "user", "content": prompt}]} if self.chat else {"prompt": prompt}
        body |= {"stream_options": {"include_usage": True}, **self.extra}
        return {name: value for name, value in body.items() if value is not None} | {"stream": True}

    @property
    def greedy(self) -> bool:
        """Whether the same prompt has to get the same text."""
        return self.body("").get("temperature") == 0

    def as_dict(self) -> dict[str, Any]:
        """For the result."""
        return {"name": self.name, "address": self.address, "model": self.body("")["model"], "extra": dict(self.extra)}


def two_arms(urls: tuple[str, str | None], extras: tuple[str | None, str | None], **options: Any) -> list[Arm]:
    """The arms of a command line. The second exists if it has a URL or extra fields; its URL is the first's by default.

    Args:
        extras: the extra fields of each, as JSON.

    Raises:
        UsageError: a URL or the JSON cannot be used.
    """
    arms = [Arm("A", base_of(urls[0]), extra=_extra_fields("--extra", extras[0]), **options)]
    if urls[1] is not None or extras[1] is not None:
        arms.append(Arm("B", base_of(urls[1] or urls[0]), extra=_extra_fields("--extra2", extras[1]), **options))
    return arms


def base_of(url: str) -> str:
    """`http://host:8000` and `http://host:8000/v1/` -> `http://host:8000/v1`.

    Raises:
        UsageError: it is no URL of a server.
    """
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # a port that is no number, a bracket that does not close
        usable = False
    if not usable or parts.query or parts.fragment:
        raise UsageError(f"{url} is not the URL of a server: give one like http://127.0.0.1:8000")
    base = url.rstrip("/")
    return base if base.endswith("/v1") else f"{base}/v1"


def _extra_fields(flag: str, text: str | None) -> dict[str, Any]:
    """The JSON object of `--extra` or `--extra2`."""
    try:
        fields = json.loads(text or "{}")
    except ValueError:
        fields = None
    if not isinstance(fields, dict):
        raise UsageError(f'{flag} {text} is not a JSON object: give one like \'{{"drafting": "off"}}\'')
    if own := {"stream", "prompt", "messages", "n"} & fields.keys():
        raise UsageError(f"{flag} sets {', '.join(own)}, which the benchmark sets itself: leave it out")
    if "model" in fields and not isinstance(fields["model"], str):
        raise UsageError(f"{flag} sets model to a value that is not a string: give a name, or leave it out")
    return fields


async def list_models(http: httpx.AsyncClient, base: str) -> list[str]:
    """The names of the server's models; empty if it does not list them.

    Raises:
        UsageError: no HTTP server answers there, or it requires another key.
    """
    try:
        response = await http.get(f"{base}/models", timeout=10.0)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        reason = str(error) or type(error).__name__
        raise UsageError(f"no HTTP server answers at {base} ({reason}): start it, or correct the URL") from error
    if response.status_code in (401, 403):
        raise UsageError(f"{base} requires an API key ({response.status_code}): see --api-key and OPENAI_API_KEY")
    try:
        return [str(model["id"]) for model in response.json()["data"]] if response.status_code == 200 else []
    except (ValueError, KeyError, TypeError, RecursionError):
        return []


@dataclass(frozen=True)
class DraftCounts:
    """A server's draft counters.

    Args:
        source: the server whose counters these are.
        drafted, accepted: tokens.
        passes: target passes that verified a draft or could have.
    """

    source: str
    drafted: float
    accepted: float
    passes: float

    def since(self, before: DraftCounts) -> DraftCounts | None:
        """What was counted since an earlier reading; None if the server was restarted in between."""
        names = ("drafted", "accepted", "passes")
        counted = {name: getattr(self, name) - getattr(before, name) for name in names}
        return DraftCounts(self.source, **counted) if min(counted.values()) >= 0 else None


async def read_metrics(http: httpx.AsyncClient, arm: Arm) -> DraftCounts | None:
    """The draft counters of an arm's server; None if it has none."""
    try:
        response = await http.get(f"{arm.base.removesuffix('/v1')}/metrics", timeout=10.0)
    except httpx.HTTPError:
        return None
    return parse_metrics(response.text) if response.status_code == 200 else None


def parse_metrics(text: str) -> DraftCounts | None:
    """The draft counters of a text in Prometheus' format, added up over their labels (engines, models).

    None if there are none, or if it is no such text.
    """
    values: dict[str, float] = defaultdict(float)
    try:
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                values[sample.name] += sample.value
    except (ValueError, KeyError, IndexError):
        return None
    for source, prefix in _PREFIXES.items():
        names = [f"{prefix}_num_{what}_total" for what in ("draft_tokens", "accepted_tokens", "drafts")]
        if all(name in values for name in names):
            return DraftCounts(source, *(values[name] for name in names))
    return None
