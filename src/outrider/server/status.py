"""Routes for operators: health and metrics."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel
from starlette.responses import PlainTextResponse, Response

from outrider.server.openai.shapes import ERRORS
from outrider.server.route import ApiRoute, Call, OpenRoute, json_response

router = APIRouter(route_class=ApiRoute, responses=ERRORS)
open_router = APIRouter(route_class=OpenRoute, responses=ERRORS)


class Health(BaseModel):
    """Requests in the batch and in the queue."""

    status: Literal["ok"] = "ok"
    running: int
    waiting: int


@open_router.get("/health", response_model=Health, openapi_extra={"security": []})
async def health(call: Call) -> Response:
    """200 while the server accepts requests."""
    running, waiting = call.service.scheduler.counts
    return json_response(Health(running=running, waiting=waiting))


@router.get("/metrics", response_class=PlainTextResponse)
async def metrics(call: Call) -> Response:
    """Prometheus metrics."""
    service = call.service
    text = service.metrics.text(service.scheduler, service.parts.caches)
    return Response(text, media_type="text/plain; version=0.0.4")
