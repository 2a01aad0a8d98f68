"""The ASGI application: every route, and what is around them."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Collection
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response

from outrider import __version__
from outrider.server import status
from outrider.server.access import HEADER, Access
from outrider.server.anthropic import routes as anthropic
from outrider.server.model_set import ModelSet
from outrider.server.openai import chat, completions, tokens
from outrider.server.openai import models as listing
from outrider.server.origins import Origins
from outrider.server.page import page_routes
from outrider.server.paths import Paths, not_routed
from outrider.server.responses import routes as responses
from outrider.server.responses.live import Responses
from outrider.server.responses.store import ResponseStore
from outrider.server.route import Call, error_response


def create_app(
    models: ModelSet, *, loopback: str | None = None, cors: Collection[str] = (), store: ResponseStore | None = None
) -> FastAPI:
    """Puts the routes around models.

    Args:
        loopback: the host's name, if it listens on loopback alone: without keys, other web pages are refused then.
        cors: origins of web pages that may use the server.
        store: of responses; by default in memory.
    """

    @contextlib.asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        models.start()
        yield
        await models.stop()
        await app.state.responses.stop()

    everything: dict[str, Any] = {"allow_methods": ("*",), "allow_headers": ("*",), "expose_headers": (HEADER,)}
    allowed = [Middleware(CORSMiddleware, allow_origins=cors, **everything)] if cors else []
    app = _App(
        title="outrider",
        version=__version__,
        summary="Completions and chat over the OpenAI API, with speculative decoding.",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        exception_handlers={HTTPException: _not_routed},
        redirect_slashes=False,
        middleware=[
            Middleware(Access),
            Middleware(Paths),
            Middleware(Origins, cors=cors, loopback=None if models.host.keys else loopback),
            *allowed,
        ],
    )
    app.state.models, app.state.responses = models, Responses(store or ResponseStore())
    app.state.routes = []
    apis = (completions, chat, responses, anthropic, listing, tokens, status)
    for router in (*(api.router for api in apis), status.open_router):
        app.include_router(router)
        app.state.routes += [_listed(route) for route in router.routes if isinstance(route, APIRoute)]
    app.router.routes += page_routes()
    return app


class _App(FastAPI):
    def openapi(self) -> dict[str, Any]:
        """FastAPI's description, and which routes need a key."""
        if self.openapi_schema is None and self.state.models.host.keys:
            document = super().openapi()
            document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
            document["security"] = [{"key": []}]
        return super().openapi()


async def _not_routed(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    call = Call(request.scope)
    return error_response(call, not_routed(error.status_code, call.method, call.url.path, call.app.state.routes))


def _listed(route: APIRoute) -> str:
    return f"{' '.join(route.methods or ())} {route.path_format}"
