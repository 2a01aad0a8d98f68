"""A server on loopback that speaks the OpenAI API, and misbehaves as it is told to."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

WORDS = ["Über", " den", " Wolken", "\u2028", " 🛩", "\x85", "!"]


@dataclass
class FakeEndpoint:
    """What it does; tests change it while it runs.

    words: of every answer, a token each; `words_of` may give others for a request's body.
    behaviour: "well", "cut" (the stream ends in the middle), "interrupted" (so, with [DONE]), "torn" (so does the
        connection), "no usage", "refuse" (429), "comments", "split" (a byte at a time), "fail" (500), "hang up" (500
        and no body), "error event", "not json" (an event), "json" (no stream), "html" (for models too),
        "no stream options" (422), "silent" (in the middle), "not done" (no [DONE]).
    misbehaving: which requests, by their number; None for all.
    """

    words: list[str] = field(default_factory=lambda: list(WORDS))
    behaviour: str = "well"
    misbehaving: range | None = None
    models: list[str] = field(default_factory=lambda: ["fake", "other"])
    key: str | None = None
    metrics: list[str] = field(default_factory=list)
    timings: dict | None = None
    delay: float = 0.0
    bodies: list[dict] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0
    address: str = ""

    def words_of(self, body: dict) -> list[str]:
        return body.get("words") or self.words

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/v1/models", self._models),
                Route("/v1/completions", self._complete, methods=["POST"]),
                Route("/v1/chat/completions", self._complete, methods=["POST"]),
                Route("/metrics", self._metrics),
            ]
        )

    def _denied(self, request: Request) -> Response | None:
        if self.key is None or request.headers.get("authorization") == f"Bearer {self.key}":
            return None
        return JSONResponse({"error": {"message": "who are you?"}}, 401)

    async def _models(self, request: Request) -> Response:
        if self.behaviour == "html":
            return Response("<html>welcome</html>", media_type="text/html")
        return self._denied(request) or JSONResponse({"data": [{"id": name} for name in self.models]})

    async def _metrics(self, _request: Request) -> Response:
        # Each reading finds the next text, so that counters grow.
        text = self.metrics.pop(0) if self.metrics else None
        return PlainTextResponse(text) if text is not None else Response(status_code=404)

    async def _complete(self, request: Request) -> Response:
        denied = self._denied(request)
        if denied:
            return denied
        body = await request.json()
        number = len(self.bodies)
        self.bodies.append(body)
        behaves = self.misbehaving is not None and number not in self.misbehaving
        behaviour = "well" if behaves else self.behaviour
        if body["model"] not in self.models:
            return JSONResponse({"error": {"message": f"no model {body['model']}"}}, 404)
        if behaviour == "no stream options" and "stream_options" in body:
            return JSONResponse({"detail": [{"loc": ["stream_options"], "msg": "extra fields"}]}, 422)
        if behaviour == "refuse":
            return JSONResponse({"error": {"message": "busy"}}, 429)
        if behaviour == "fail":
            return PlainTextResponse("it broke", 500)
        if behaviour in ("html", "json"):
            return JSONResponse({"choices": []})
        if behaviour == "hang up":
            return StreamingResponse(_hang_up(), status_code=500, media_type="text/event-stream")
        chat = request.url.path.endswith("chat/completions")
        parts = self._stream(body, behaviour, chat)
        return StreamingResponse(parts, media_type="text/event-stream; charset=utf-8")

    async def _stream(self, body: dict, behaviour: str, chat: bool):
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            async for event in self._events(body, behaviour, chat):
                if behaviour == "split":
                    for byte in event:
                        yield bytes([byte])
                        await asyncio.sleep(0)
                else:
                    yield event
        finally:
            self.at_once -= 1

    async def _events(self, body: dict, behaviour: str, chat: bool):
        words = self.words_of(body)
        if behaviour == "comments":
            yield b": keep-alive\n\n"
        for place, word in enumerate(words):
            await asyncio.sleep(self.delay)
            if place == len(words) // 2:
                if behaviour == "cut":
                    return
                if behaviour == "interrupted":
                    yield b"data: [DONE]\n\n"
                    return
                if behaviour == "torn":
                    raise ConnectionError("torn on purpose")
                if behaviour == "error event":
                    yield _event({"error": {"message": "out of memory"}})
                    return
                if behaviour == "not json":
                    yield b"data: {\r\n\r\n"
                if behaviour == "silent":
                    await asyncio.sleep(30)
            if behaviour == "comments":
                yield b": keep-alive\r\n\r\nid: 7\r\n"
            said = {"delta": {"content": word}} if chat else {"text": word}
            yield _event({"choices": [{"index": 0, "finish_reason": None, **said}], "usage": None})
        last = {"delta": {}} if chat else {"text": ""}
        timings = {"timings": self.timings} if self.timings else {}
        yield _event({"choices": [{"index": 0, "finish_reason": "stop", **last}], **timings})
        if behaviour != "no usage" and body.get("stream_options", {}).get("include_usage"):
            # One token more than there are chunks, to tell the two counts apart.
            yield _event({"choices": [], "usage": {"completion_tokens": len(words) + 1}})
        if behaviour != "not done":
            yield b"data: [DONE]\n\n"


async def _hang_up():
    raise ConnectionError("hung up on purpose")
    yield b""


def _event(body: dict) -> bytes:
    return f"data: {json.dumps(body, ensure_ascii=False)}\n\n".encode()


@contextlib.contextmanager
def fake_endpoint() -> Iterator[FakeEndpoint]:
    """A running one."""
    fake = FakeEndpoint()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = uvicorn.Config(fake.app(), port=port, log_level="critical", timeout_graceful_shutdown=1)
    running = uvicorn.Server(config)
    thread = threading.Thread(target=running.run)
    thread.start()
    try:
        while not running.started:
            time.sleep(0.01)
        fake.address = f"http://127.0.0.1:{port}"
        yield fake
    finally:
        running.should_exit = True
        thread.join(60)
