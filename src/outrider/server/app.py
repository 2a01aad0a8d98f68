"""The ASGI application: every route, and what is around them."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response

from outrider import __version__
from outrider.server import status
from outrider.server.openai import chat, completions, models
from outrider.server.origins import LoopbackOnly
from outrider.server.page import page_routes
from outrider.server.responses import routes as responses
from outrider.server.responses.live import Responses
from outrider.server.responses.store import ResponseStore
from outrider.server.route import error_response
from outrider.server.service import Service


def create_app(service: Service, *, loopback: str | None = None, store: ResponseStore | None = None) -> FastAPI:
    """Puts the routes around a service.

    Args:
        loopback: the host's name, if it listens on loopback alone: without keys, web pages are refused then.
        store: of responses; by default in memory.
    """

    @contextlib.asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        service.start()
        yield
        await service.stop()
        await app.state.responses.stop()

    app = _App(
        title="outrider",
        version=__version__,
        summary="Completions and chat over the OpenAI API, with speculative decoding.",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        exception_handlers={HTTPException: _not_routed},
        middleware=[] if loopback is None or service.keys else [Middleware(LoopbackOnly, host=loopback)],
    )
    app.state.service, app.state.responses = service, Responses(store or ResponseStore())
    for api in (completions, chat, responses, models, status):
        app.include_router(api.router)
    app.router.routes += page_routes()
    return app


class _App(FastAPI):
    def openapi(self) -> dict[str, Any]:
        """FastAPI's description, and which routes need a key."""
        if self.openapi_schema is None and self.state.service.keys:
            document = super().openapi()
            document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
            document["security"] = [{"key": []}]
        return super().openapi()


async def _not_routed(request: Request, error: Exception) -> Response:
    service: Service = request.app.state.service
    return error_response(service, service.error(error))
