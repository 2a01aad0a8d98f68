"""One request, and the times at which its answer arrives."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import httpx

from outrider.bench.endpoint.server import Arm, DraftCounts

_QUOTED = 300  # characters of a server's own message


@dataclass
class Answer:
    """One request that ended.

    number: of the request within its level; both arms have the same prompt under one number.
    chunks: the parts that had text.
    usage: tokens by the server's own count; None where it does not count them.
    first_seconds, last_seconds: from sending the request to the first and to the last text.
    draft: the draft counters of the response, if it has any (llama.cpp).
    failure: why there is no whole answer: "HTTP 429", "timeout", "connection", "cut off", "malformed", "error in the
        stream"; None if there is one. `message` has the server's or the connection's own words.
    """

    number: int
    chunks: list[str] = field(default_factory=list)
    usage: int | None = None
    first_seconds: float | None = None
    last_seconds: float = 0.0
    draft: DraftCounts | None = None
    failure: str | None = None
    message: str = ""

    @property
    def text(self) -> str:
        """The answer."""
        return "".join(self.chunks)

    @property
    def tokens(self) -> int:
        """By the server's own count, or the chunks that had text."""
        return len(self.chunks) if self.usage is None else self.usage

    @property
    def seconds_per_token(self) -> float | None:
        """Time per output token after the first; None if the answer came in one chunk."""
        if self.first_seconds is None or self.tokens < 2 or len(self.chunks) < 2:
            return None
        return (self.last_seconds - self.first_seconds) / (self.tokens - 1)


def open_client(api_key: str | None, silence_seconds: float = 300.0) -> httpx.AsyncClient:
    """A client for many requests at a time.

    Args:
        silence_seconds: without a byte until a request times out: it may wait in a long queue.
    """
    return httpx.AsyncClient(
        # Compression would hold back the tokens that are timed.
        headers={"Accept-Encoding": "identity"} | ({"Authorization": f"Bearer {api_key}"} if api_key else {}),
        timeout=httpx.Timeout(silence_seconds, connect=10.0, pool=None),
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=None),
    )


async def ask(http: httpx.AsyncClient, arm: Arm, number: int, prompt: str) -> Answer:
    """One request. Never raises: a failure is part of the answer."""
    answer, finished, started = Answer(number), False, perf_counter()
    try:
        async with http.stream("POST", arm.address, json=arm.body(prompt)) as response:
            if response.status_code != 200:
                answer.failure = f"HTTP {response.status_code}"
                answer.message = _message(await response.aread())
                return answer
            async for event in _events(response):
                now = perf_counter() - started
                if event.get("error"):
                    answer.failure, answer.message = "error in the stream", _message(json.dumps(event).encode())
                    return answer
                text, ended = _chunk(event)
                finished |= ended
                if text:
                    answer.chunks.append(text)
                    answer.first_seconds = now if answer.first_seconds is None else answer.first_seconds
                    answer.last_seconds = now
                usage = event.get("usage")
                if isinstance(usage, Mapping) and isinstance(usage.get("completion_tokens"), int):
                    answer.usage = usage["completion_tokens"]
                answer.draft = timings_of(event.get("timings")) or answer.draft
    except (ValueError, RecursionError) as error:
        answer.failure, answer.message = "malformed", str(error)
    except httpx.HTTPError as error:
        if not finished:
            answer.failure = "timeout" if isinstance(error, httpx.TimeoutException) else "connection"
            answer.message = str(error) or type(error).__name__
    if not finished and answer.failure is None:
        # [DONE] alone does not end an answer: llama-cpp-python's server sends it when another request interrupts one.
        answer.failure, answer.message = "cut off", "the stream ended without a finish reason"
    return answer


async def _events(response: httpx.Response) -> AsyncIterator[dict[str, Any]]:
    """The JSON objects of a stream of server-sent events, whose every event is one line.

    httpx's own lines do not serve: they end at U+2028 and U+0085 too, which may stand unescaped in JSON.

    Raises:
        ValueError: an event is no JSON object.
    """
    rest = b""
    async for part in response.aiter_bytes():
        *lines, rest = (rest + part).split(b"\n")
        for line in lines:
            data = line.removeprefix(b"data:").strip()
            if line.startswith(b"data:") and data != b"[DONE]":
                event = json.loads(data)
                if not isinstance(event, dict):
                    raise ValueError(f"an event is no JSON object: {event!r:.{_QUOTED}}")
                yield event


def _chunk(event: Mapping[str, Any]) -> tuple[str, bool]:
    """The text of a chunk of either route, and whether it ends the answer."""
    choices = event.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    if not isinstance(choice, Mapping):
        return "", False
    delta = choice.get("delta")
    source = delta if isinstance(delta, Mapping) else choice
    # Thoughts are tokens too; servers have two names for them.
    parts = (source.get(name) for name in ("reasoning_content", "reasoning", "content", "text"))
    return "".join(part for part in parts if isinstance(part, str)), choice.get("finish_reason") is not None


def timings_of(timings: Any) -> DraftCounts | None:
    """The draft counters in `timings` of a llama.cpp response: after the prefill, a pass emits one token more than it
    accepts."""
    if not isinstance(timings, Mapping):
        return None
    predicted, drafted, accepted = (timings.get(name) for name in ("predicted_n", "draft_n", "draft_n_accepted"))
    if not (isinstance(predicted, int) and isinstance(drafted, int) and isinstance(accepted, int)):
        return None
    return DraftCounts("llama.cpp", drafted, accepted, max(predicted - 1 - accepted, 0))


def _message(body: bytes) -> str:
    """The message of an error in one of the shapes that servers give it."""
    try:
        found = json.loads(body)
        error = found.get("error", found.get("detail", found.get("message")))
        message = error.get("message", error) if isinstance(error, dict) else error
    except (ValueError, AttributeError, RecursionError):
        message = body.decode("utf-8", "replace").strip()
    return str(message or "no message")[:_QUOTED]
