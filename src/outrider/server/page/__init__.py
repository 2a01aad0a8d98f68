"""The page at `/`: files that the browser gets as they are. All it shows comes from the routes under `/v1`."""

from __future__ import annotations

from importlib.resources import files
from importlib.resources.abc import Traversable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

_KINDS = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".mjs": "text/javascript",
    ".txt": "text/plain",
}

# Nothing but these files runs, and they talk to this server alone. The icon is a data: URL.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",
}


def page_routes() -> list[Route]:
    """A route for each file. None asks for the API key: they hold no secret, and the page has to ask for it."""
    page = files(__name__)
    routes = [_route("/", page / "index.html")]
    for folder, address in ((page, "/page/"), (page / "vendor", "/page/vendor/")):
        served = (file for file in folder.iterdir() if _suffix(file) in _KINDS and file.name != "index.html")
        routes += [_route(address + file.name, file) for file in sorted(served, key=lambda file: file.name)]
    return routes


def _suffix(file: Traversable) -> str:
    return file.name[file.name.rfind(".") :]


def _route(path: str, file: Traversable) -> Route:
    content = file.read_bytes()
    kind = _KINDS[_suffix(file)]

    async def answer(_request: Request) -> Response:
        return Response(content, headers=_HEADERS, media_type=kind)

    return Route(path, answer)
