"""Which web pages may use the server, and which names lead to it.

Any page in a browser may send requests to loopback, and a page whose host name resolves to loopback (DNS rebinding) may
read the responses too. Browsers send the page's origin in Origin and the host name in Host. Without API keys, a server
that listens on loopback alone refuses pages and names that are not its own.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from outrider.server.errors import ApiError
from outrider.server.route import ApiRoute

_HOST = re.compile(r"([A-Za-z0-9._~-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]*)?")
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*")
_WEB = ("http", "https")
_REMEDY = "use http://127.0.0.1 or http://localhost, or start the server with --api-key"


class Origins:
    """ASGI middleware: refuses preflights of pages that `--cors` does not allow and, on loopback, requests for another
    host name or from another page.

    Args:
        cors: allowed origins; "*" allows all.
        loopback: the name or address that the server was started with; None if it is open to other names and pages.
    """

    def __init__(self, app: ASGIApp, cors: Collection[str], loopback: str | None) -> None:
        self._app, self._cors = app, frozenset(cors)
        self._host = None if loopback is None else _plain(loopback)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        problem = self._problem(scope["method"], Headers(scope=scope)) if scope["type"] == "http" else None
        if problem is None:
            await self._app(scope, receive, send)
        else:
            body = ApiRoute.error_body(ApiError(403, problem, kind="permission_error"))
            await JSONResponse(body, 403)(scope, receive, send)

    def _problem(self, method: str, headers: Headers) -> str | None:
        origins = [origin for origin in headers.getlist("origin") if not self._cors & {origin, "*"}]
        if method == "OPTIONS" and origins and "access-control-request-method" in headers:
            return f"web pages of {origins[0]!r} may not use this server: start it with --cors {origins[0]}"
        if self._host is None:
            return None
        for host in headers.getlist("host"):
            if not _HOST.fullmatch(host) or not self._allows(_hostname(f"//{host}")):
                return f"the Host header names {host!r}, which is not this server: {_REMEDY}"
        for origin in origins:
            # Applications such as editors have their own schemes, which no web page can have.
            scheme = origin.partition("://")[0].lower() if "://" in origin else ""
            of_an_application = _SCHEME.fullmatch(scheme) and scheme not in _WEB
            if not of_an_application and not self._allows(_hostname(origin)):
                return f"web pages of {origin!r} may not use this server: start it with --cors {origin}, or {_REMEDY}"
        return None

    def _allows(self, name: str | None) -> bool:
        return name is not None and (is_loopback(name) or _plain(name) == self._host)


def is_loopback(name: str) -> bool:
    """Whether a host name or address is always this machine."""
    name = _plain(name)
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return name == "localhost" or name.endswith(".localhost")


def _hostname(url: str) -> str | None:
    """The host of a URL or origin; None without one."""
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


def _plain(name: str) -> str:
    return name.lower().removesuffix(".").strip("[]")
