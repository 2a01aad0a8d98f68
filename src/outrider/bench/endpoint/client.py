"""Sending one request and timing what comes back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from time import perf_counter
from types import TracebackType
from typing import Any, Self

import httpx

from outrider.bench.endpoint.answer import Answer, DraftCounts, Failure, FailureKind
from outrider.bench.endpoint.arm import Arm
from outrider.bench.endpoint.draft_counters import Counters, read_counters, read_timings
from outrider.bench.endpoint.event_stream import DONE, EventStream
from outrider.errors import UsageError

_CONNECT_SECONDS = 10.0
_SILENCE_SECONDS = 300.0  # a request may stand in a long queue before its first token
_QUOTED = 300  # characters of a server's own message


class Client:
    """Many requests at a time to any server; each on a connection that is kept for the next.

    Raises:
        UsageError: the key cannot be sent.
    """

    def __init__(self, api_key: str | None, silence_seconds: float = _SILENCE_SECONDS) -> None:
        if api_key and not (api_key.isascii() and api_key.isprintable()):
            raise UsageError("the API key has characters that HTTP cannot carry: correct --api-key or OPENAI_API_KEY")
        self.has_key = bool(api_key)
        self._http = httpx.AsyncClient(
            # Compression would hold back the tokens that are timed.
            headers={"Accept-Encoding": "identity"} | ({"Authorization": f"Bearer {api_key}"} if api_key else {}),
            timeout=httpx.Timeout(silence_seconds, connect=_CONNECT_SECONDS, pool=None),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=None),
        )

    async def __aenter__(self) -> Self:
        await self._http.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.__aexit__(kind, error, trace)

    async def get(self, address: str) -> httpx.Response:
        """What is there.

        Raises:
            httpx.HTTPError: nothing answers, or not in HTTP.
        """
        return await self._http.get(address, timeout=_CONNECT_SECONDS)

    async def counters(self, arm: Arm) -> Counters | None:
        """What the server has drafted so far; None if it does not say."""
        try:
            response = await self.get(arm.metrics_address)
        except httpx.HTTPError:
            return None
        return read_counters(response.text) if response.status_code == 200 else None

    async def ask(self, arm: Arm, number: int, prompt: str) -> Answer:
        """One request. Never raises: what goes wrong is part of the answer."""
        reading = _Reading(number)
        try:
            async with self._http.stream("POST", arm.address, json=arm.body(prompt)) as response:
                failure = await _refusal(response)
                if failure is not None:
                    return reading.failed(failure)
                reading.begun = True
                async for part in response.aiter_bytes():
                    reading.take(part)
        except httpx.HTTPError as error:
            if not reading.ended:
                return reading.failed(_broken(error, reading.begun))
        return reading.answer()


class _Reading:
    """An answer that is coming in. The clock starts with it."""

    def __init__(self, number: int) -> None:
        self.number, self.begun, self.ended = number, False, False
        self._started = perf_counter()
        self._events = EventStream()
        self._texts: list[str] = []
        self._first: float | None = None
        self._last = 0.0
        self._usage: int | None = None
        self._draft: DraftCounts | None = None
        self._failure: Failure | None = None

    def take(self, part: bytes) -> None:
        """What came just now."""
        now = perf_counter() - self._started
        for data in self._events.push(part):
            if data.strip() != DONE and self._failure is None:
                self._event(data, now)

    def _event(self, data: str, now: float) -> None:
        try:
            event = json.loads(data)
        except (ValueError, RecursionError):
            event = None
        if not isinstance(event, dict):
            self._failure = Failure(FailureKind.MALFORMED, f"an event is no JSON object: {data[:_QUOTED]}")
            return
        if event.get("error"):
            self._failure = Failure(FailureKind.SERVER_ERROR, _message(event) or "an error without a message")
            return
        text, finished = _chunk(event)
        self.ended |= finished
        if text:
            self._texts.append(text)
            self._first = now if self._first is None else self._first
            self._last = now
        usage = event.get("usage")
        if isinstance(usage, Mapping) and isinstance(usage.get("completion_tokens"), int):
            self._usage = usage["completion_tokens"]
        self._draft = read_timings(event.get("timings")) or self._draft

    def answer(self) -> Answer:
        """After the last byte.

        An answer has ended if it has a finish reason: [DONE] alone is also what llama-cpp-python's server sends when
        another request interrupts this one.
        """
        if self._failure is None and not self.ended:
            self._failure = Failure(FailureKind.CUT_OFF, "the stream ended without a finish reason")
        return Answer(
            number=self.number,
            text="".join(self._texts),
            tokens=len(self._texts) if self._usage is None else self._usage,
            counted_by_server=self._usage is not None,
            first_seconds=self._first,
            last_seconds=self._last,
            chunks=len(self._texts),
            draft=self._draft,
            failure=self._failure,
        )

    def failed(self, failure: Failure) -> Answer:
        """It did not come to an end."""
        self._failure = self._failure or failure
        return self.answer()


def _chunk(event: Mapping[str, Any]) -> tuple[str, bool]:
    """The text of a chunk of either route, and whether it is the answer's last."""
    choices = event.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    if not isinstance(choice, Mapping):
        return "", False
    delta = choice.get("delta")
    source = delta if isinstance(delta, Mapping) else choice
    # Thoughts are tokens too; servers call them by two names.
    parts = (source.get(name) for name in ("reasoning_content", "reasoning", "content", "text"))
    return "".join(part for part in parts if isinstance(part, str)), choice.get("finish_reason") is not None


async def _refusal(response: httpx.Response) -> Failure | None:
    """Why this is not the beginning of a stream; None if it is."""
    status = response.status_code
    if status == 200:
        kind = response.headers.get("content-type", "nothing").partition(";")[0].strip()
        if kind == "text/event-stream":
            return None
        return Failure(FailureKind.MALFORMED, f"the server answered with {kind}, not with a stream", status)
    try:
        text = (await response.aread()).decode("utf-8", "replace")
    except httpx.HTTPError:  # the status says enough
        text = ""
    try:
        message = _message(json.loads(text))
    except (ValueError, RecursionError):
        message = None
    message = message or text[:_QUOTED].strip() or "no message"
    if status == 429:
        return Failure(FailureKind.REFUSED, message, status)
    if 400 <= status < 500:
        return Failure(FailureKind.REJECTED, message, status)
    kind_of_failure = FailureKind.SERVER_ERROR if status >= 500 else FailureKind.MALFORMED
    return Failure(kind_of_failure, message, status)


def _message(body: Any) -> str | None:
    """What an error says in one of the shapes that servers give it."""
    if not isinstance(body, Mapping):
        return None
    error = body.get("error", body.get("detail", body.get("message")))
    if isinstance(error, Mapping):
        error = error.get("message") or json.dumps(error)
    return error[:_QUOTED] if isinstance(error, str) else json.dumps(error)[:_QUOTED] if error else None


def _broken(error: httpx.HTTPError, begun: bool) -> Failure:
    """A connection that failed, before or after the answer began."""
    message = str(error) or type(error).__name__
    if isinstance(error, httpx.TimeoutException):
        return Failure(FailureKind.TIMEOUT, f"nothing came for too long ({type(error).__name__})")
    if isinstance(error, httpx.DecodingError):
        return Failure(FailureKind.MALFORMED, message)
    return Failure(FailureKind.CUT_OFF if begun else FailureKind.UNREACHABLE, message)
