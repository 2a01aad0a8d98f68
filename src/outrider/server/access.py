"""Request ids, and one log line per request."""

from __future__ import annotations

import logging
import re
import secrets
import time
from typing import Any
from urllib.parse import quote

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from outrider.server.generation import Run

HEADER = "X-Request-Id"
_log = logging.getLogger("outrider.server.access")
_ID = re.compile(r"[A-Za-z0-9_.:\-]{1,128}")
_QUIET = ("/health", "/ready", "/metrics")
"""Asked every few seconds by monitoring: logged at debug level."""


class Access:
    """ASGI middleware: gives each request an id, the client's own if it sends one, and logs its end.

    `scope["state"]` has the id as `request_id`; a route puts its run there as `run`.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        given = Headers(scope=scope).get(HEADER, "")
        number = given if _ID.fullmatch(given) else f"req_{secrets.token_hex(12)}"
        state = scope.setdefault("state", {})
        state["request_id"] = number
        began, status = time.perf_counter(), 0

        async def with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[HEADER] = number
            await send(message)

        try:
            await self._app(scope, receive, with_id)
        finally:
            level = logging.DEBUG if scope["path"] in _QUIET else logging.INFO
            if _log.isEnabledFor(level):
                seconds = time.perf_counter() - began
                _log.log(level, "%s", _line(scope, status, number, seconds, state.get("run")))


def _line(scope: Scope, status: int, number: str, seconds: float, run: Run | None) -> str:
    client: Any = scope.get("client") or ("-",)
    line = f'{client[0]} "{scope["method"]} {quote(scope["path"])}" {status} {number} {seconds:.2f} s'
    if run is None or not (outputs := run.outputs):
        return line
    prompts = sum(len(ids) for ids, _ in run.generation.prompts)
    tokens = sum(len(out.token_ids) for out in outputs)
    drafted, accepted = sum(out.stats.drafted for out in outputs), sum(out.stats.accepted for out in outputs)
    speed = sum(out.stats.decode_tokens_per_second for out in outputs)
    share = f", {accepted / drafted:.0%} of drafts accepted" if drafted else ""
    rate = f", {speed:.1f} tokens/s" if speed else ""
    return f"{line}: {prompts} + {tokens} tokens{rate}{share}"
