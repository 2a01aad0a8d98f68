"""What is measured: a server, and what every request to it says."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from outrider.errors import UsageError


@dataclass(frozen=True)
class Arm:
    """One side of a comparison.

    Args:
        name: "A" or "B".
        base: the URL up to and with `/v1`.
        chat: whether prompts go to the chat route as a user's turn, else to the completion route as they are.
        model, max_tokens, temperature: of every request.
        extra: more fields of every request's body, instead of those above where they have the same name; null leaves a
            field out.
        with_usage: whether the server is asked for its own token counts.
    """

    name: str
    base: str
    chat: bool
    model: str
    max_tokens: int
    temperature: float
    extra: Mapping[str, Any] = field(default_factory=dict)
    with_usage: bool = True

    @property
    def address(self) -> str:
        """Where requests go."""
        return f"{self.base}/chat/completions" if self.chat else f"{self.base}/completions"

    @property
    def metrics_address(self) -> str:
        """Where Prometheus' counters are, if anywhere: beside `/v1`, not below it."""
        return f"{self.base.removesuffix('/v1')}/metrics"

    def body(self, prompt: str) -> dict[str, Any]:
        """Of one request."""
        body: dict[str, Any] = {"model": self.model, "max_tokens": self.max_tokens, "temperature": self.temperature}
        if self.chat:
            body["messages"] = [{"role": "user", "content": prompt}]
        else:
            body["prompt"] = prompt
        if self.with_usage:
            body["stream_options"] = {"include_usage": True}
        body |= self.extra
        return {name: value for name, value in body.items() if value is not None} | {"stream": True}

    @property
    def greedy(self) -> bool:
        """Whether the same prompt has to get the same text."""
        return self.body("").get("temperature") == 0

    def as_dict(self) -> dict[str, Any]:
        """For the result."""
        return {"name": self.name, "address": self.address, "model": self.body("")["model"], "extra": dict(self.extra)}


def two_arms(first: tuple[str, str | None], second: tuple[str | None, str | None], **options: Any) -> list[Arm]:
    """The arms of a command line: each a URL and its extra fields as JSON.

    The second is there if it has either; without a URL it is the first's.

    Raises:
        UsageError: a URL or the JSON cannot be used.
    """
    arms = [Arm("A", base_of(first[0]), extra=extra_fields("--extra", first[1]), **options)]
    url, extra = second
    if url is not None or extra is not None:
        arms.append(Arm("B", base_of(url or first[0]), extra=extra_fields("--extra2", extra), **options))
    return arms


def base_of(url: str) -> str:
    """`http://host:8000` and `http://host:8000/v1/` -> `http://host:8000/v1`.

    Raises:
        UsageError: it is no URL of a server.
    """
    try:
        parts = urlsplit(url)
        complete = bool(parts.scheme in ("http", "https") and parts.hostname and parts.port != 0)
        complete = complete and not parts.query and not parts.fragment
    except ValueError:  # a port that is no number, a bracket that does not close
        complete = False
    if not complete:
        raise UsageError(f"{url} is not the URL of a server: give one like http://127.0.0.1:8000")
    base = url.rstrip("/")
    return base if base.endswith("/v1") else f"{base}/v1"


def extra_fields(flag: str, text: str | None) -> dict[str, Any]:
    """The JSON object of `--extra` or `--extra2`.

    Raises:
        UsageError: it is none, or takes the prompt or the stream away.
    """
    if text is None:
        return {}
    try:
        fields = json.loads(text)
    except ValueError as error:
        raise UsageError(f'{flag} is not JSON ({error}): give an object like \'{{"drafting": "off"}}\'') from error
    if not isinstance(fields, dict):
        raise UsageError(f'{flag} is not a JSON object: give one like \'{{"drafting": "off"}}\'')
    for name in ("stream", "prompt", "messages", "n"):
        if name in fields:
            raise UsageError(f"{flag} sets {name}, which the benchmark sets itself: leave it out")
    if "model" in fields and not isinstance(fields["model"], str):
        raise UsageError(f"{flag} sets model to what is no text: give a name, or leave it out")
    return fields
