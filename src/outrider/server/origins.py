"""Protects a loopback server without API keys from web pages.

Any page in a browser may send requests to loopback, and a page whose host name resolves to loopback (DNS rebinding) may
read the responses too. Browsers send the page's origin in Origin and the host name in Host.
"""

from __future__ import annotations

import re
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


class LoopbackOnly:
    """ASGI middleware: refuses requests for another host name, or from another web page.

    Args:
        host: the name or address that the server was started with, allowed too.
    """

    def __init__(self, app: ASGIApp, host: str) -> None:
        self._app, self._host = app, _plain(host)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        problem = self._problem(Headers(scope=scope)) if scope["type"] == "http" else None
        if problem is None:
            await self._app(scope, receive, send)
        else:
            body = ApiRoute.error_body(ApiError(403, problem, kind="permission_error"))
            await JSONResponse(body, 403)(scope, receive, send)

    def _problem(self, headers: Headers) -> str | None:
        for host in headers.getlist("host"):
            if not _HOST.fullmatch(host) or not self._allows(_hostname(f"//{host}")):
                return f"the Host header names {host!r}, which is not this server: {_REMEDY}"
        for origin in headers.getlist("origin"):
            # Applications such as editors have their own schemes, which no web page can have.
            scheme = origin.partition("://")[0].lower() if "://" in origin else ""
            of_an_application = _SCHEME.fullmatch(scheme) and scheme not in _WEB
            if not of_an_application and not self._allows(_hostname(origin)):
                return (
                    f"a web page of {origin!r} sent this, and a server without a key serves none but its own: {_REMEDY}"
                )
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
