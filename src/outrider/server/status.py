"""Routes for operators and load balancers: health, readiness and metrics."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel
from starlette.responses import PlainTextResponse, Response

from outrider.server.all_metrics import metrics_text
from outrider.server.errors import ApiError
from outrider.server.openai.shapes import ERRORS
from outrider.server.route import ApiRoute, Call, OpenRoute, json_response

router = APIRouter(route_class=ApiRoute, responses=ERRORS)
open_router = APIRouter(route_class=OpenRoute, responses=ERRORS)


class Health(BaseModel):
    """Requests in the batch and in the queue, of all models."""

    status: Literal["ok"] = "ok"
    running: int
    waiting: int


@open_router.get("/health", response_model=Health, openapi_extra={"security": []})
async def health(call: Call) -> Response:
    """200 while the process can answer, draining too; 503 asks for a restart."""
    models = call.models
    if not models.alive:
        raise ApiError(503, "the engine's thread has ended: restart the server, and see its log", kind="server_error")
    running, waiting = models.counts
    return json_response(Health(running=running, waiting=waiting))


class Ready(BaseModel):
    """The server accepts requests."""

    status: Literal["ready"] = "ready"


@open_router.get("/ready", response_model=Ready, openapi_extra={"security": []})
async def ready(call: Call) -> Response:
    """200 while the server accepts requests: no signal to stop has come, and the model is loaded, or one of several can
    be."""
    call.models.check_ready()
    return json_response(Ready())


@router.get("/metrics", response_class=PlainTextResponse)
async def metrics(call: Call) -> Response:
    """Prometheus metrics."""
    return Response(metrics_text(call.models), media_type="text/plain; version=0.0.4")
