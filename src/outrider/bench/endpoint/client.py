"""A client of one server: sends a request, reads its stream, and writes down when what came."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, Self

import httpx
from httpx_sse import SSEError, aconnect_sse

from outrider.bench.endpoint.counters import Published, read_metrics
from outrider.bench.endpoint.statistics import Answer
from outrider.errors import OutriderError

_TIMEOUT = httpx.Timeout(600.0, connect=10.0)


class EndpointError(OutriderError):
    """The server cannot be measured; the message says why and what to do."""


@dataclass(frozen=True)
class Target:
    """Where requests go and what they hold beside the prompt.

    Args:
        url: of the server, with or without `/v1`.
        chat: ask for chat completions rather than completions.
        extra: more fields of every body.
    """

    url: str
    model: str | None = None
    chat: bool = False
    api_key: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def root(self) -> str:
        """The URL without `/v1`."""
        return self.url.rstrip("/").removesuffix("/v1")


class Client:
    """Talks to one target; a context manager. `model` is known once `check` has answered."""

    def __init__(self, target: Target, *, max_tokens: int, temperature: float, connections: int) -> None:
        self.target, self._max_tokens, self._temperature = target, max_tokens, temperature
        self.model = target.model
        headers = {"authorization": f"Bearer {target.api_key}"} if target.api_key else {}
        self._http = httpx.AsyncClient(
            headers=headers, timeout=_TIMEOUT, limits=httpx.Limits(max_connections=connections + 1), trust_env=False
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def check(self) -> str:
        """The name of the model that will be asked.

        Raises:
            EndpointError: nothing answers there, it is no such server, it refuses the key, or has no such model.
        """
        url = f"{self.target.root}/v1/models"
        try:
            answer = await self._http.get(url)
        except httpx.HTTPError as error:
            raise EndpointError(
                f"{url} does not answer ({error or type(error).__name__}): is the server up, and the address right?"
            ) from error
        except httpx.InvalidURL as error:
            raise EndpointError(f"{url} is no address ({error}): give one such as http://127.0.0.1:8000") from error
        if answer.status_code in (401, 403):
            raise EndpointError(f"{url} refuses the key ({answer.status_code}): pass --api-key or set OPENAI_API_KEY")
        try:
            names = [str(entry["id"]) for entry in answer.json()["data"]]
        except (ValueError, KeyError, TypeError) as error:
            raise EndpointError(
                f"{url} answers {answer.status_code}, not with a list of models: is it a server of the OpenAI API?"
            ) from error
        if self.model is None:
            if not names:
                raise EndpointError(f"{url} lists no model: name one with --model")
            self.model = names[0]
        elif names and self.model not in names:
            raise EndpointError(f"{url} has no model {self.model}: it has {', '.join(names[:8])}")
        return self.model

    async def ask(self, number: int, prompt: str) -> Answer:
        """Sends one request and reads its stream to the end; what goes wrong is in the answer, never raised."""
        sent, seen = perf_counter(), _Seen()
        try:
            async with aconnect_sse(self._http, "POST", self._url, json=self._body(prompt)) as stream:
                if stream.response.status_code != 200:
                    await stream.response.aread()
                    return Answer(number, sent, perf_counter(), failure=_refusal(stream.response))
                async for event in stream.aiter_sse():
                    if event.data.strip() == "[DONE]":
                        seen.whole = True
                        break
                    seen.take(json.loads(event.data))
        except (httpx.HTTPError, SSEError) as error:
            seen.failure = seen.failure or f"the connection failed: {type(error).__name__}"
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            seen.failure = f"what it sends is no stream of completions: {type(error).__name__}"
        return seen.answer(number, sent)

    async def metrics(self) -> Published | None:
        """What the server tells of its drafting; None if it tells nothing."""
        try:
            answer = await self._http.get(f"{self.target.root}/metrics")
        except httpx.HTTPError:
            return None
        return read_metrics(answer.text) if answer.status_code == 200 else None

    @property
    def _url(self) -> str:
        return f"{self.target.root}/v1/{'chat/' if self.target.chat else ''}completions"

    def _body(self, prompt: str) -> dict[str, Any]:
        asked = {"messages": [{"role": "user", "content": prompt}]} if self.target.chat else {"prompt": prompt}
        return {
            "model": self.model,
            **asked,
            "max_tokens": self._max_tokens,
            "temperature": self._temperature,
            "stream": True,
            "stream_options": {"include_usage": True},
            **self.target.extra,
        }


@dataclass
class _Seen:
    """What came of a stream so far."""

    text: str = ""
    first: float | None = None
    last: float | None = None
    pieces: int = 0
    usage: int | None = None
    drafted: int = 0
    accepted: int = 0
    finished: bool = False
    whole: bool = False
    failure: str | None = None

    def take(self, chunk: dict[str, Any]) -> None:
        """One event of the stream."""
        now = perf_counter()
        if chunk.get("error"):
            error = chunk["error"]
            self.failure = f"error in the stream: {error.get('message', error) if isinstance(error, dict) else error}"
            return
        for choice in chunk.get("choices") or ():
            delta = choice.get("delta") or {}
            text = "".join(filter(None, (delta.get("reasoning_content"), delta.get("content"), choice.get("text"))))
            if text:
                self.text += text
                self.pieces += 1
                self.first, self.last = self.first or now, now
            self.finished = self.finished or choice.get("finish_reason") is not None
        if chunk.get("usage"):
            self.usage = int(chunk["usage"]["completion_tokens"])
        if timings := chunk.get("timings"):
            self.drafted = int(timings.get("draft_n") or 0)
            self.accepted = int(timings.get("draft_n_accepted") or 0)

    def answer(self, number: int, sent: float) -> Answer:
        """The whole of it."""
        if self.failure is None and not (self.whole or self.finished):
            self.failure = "the stream ended in the middle"
        return Answer(
            number,
            sent,
            perf_counter(),
            first=self.first,
            last=self.last,
            tokens=self.pieces if self.usage is None else self.usage,
            counted=self.usage is not None,
            text=self.text,
            failure=self.failure,
            drafted=self.drafted,
            accepted=self.accepted,
        )


def _refusal(response: httpx.Response) -> str:
    if response.status_code == 429:
        return "refused: too many requests (429)"
    try:
        error = response.json()
        error = error.get("error", error)
        words = str(error.get("message", error) if isinstance(error, dict) else error)
    except (ValueError, AttributeError):
        words = response.text
    return f"status {response.status_code}: {' '.join(words.split())[:200]}"
