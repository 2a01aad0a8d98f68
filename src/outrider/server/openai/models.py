"""`GET /v1/models`."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel
from starlette.responses import Response

from outrider.server.openai.shapes import ERRORS, omitted
from outrider.server.route import ApiRoute, Call, json_response
from outrider.server.service import Service

router = APIRouter(prefix="/v1/models", route_class=ApiRoute, responses=ERRORS)


class Abilities(BaseModel):
    """Whether the model has a chat template, and which drafters are active."""

    chat: bool
    drafters: list[str]


class Model(BaseModel):
    """The served model or an adapter of it, in OpenAI's fields and in Anthropic's. `parent`: as vLLM names an adapter's
    model."""

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str = "outrider"
    type: Literal["model"] = "model"
    display_name: str
    created_at: str = "1970-01-01T00:00:00Z"
    max_model_len: int
    parent: str | None = omitted()
    outrider: Abilities


class ModelList(BaseModel):
    """All served models."""

    object: Literal["list"] = "list"
    data: list[Model]
    has_more: bool = False
    first_id: str
    last_id: str


@router.get("", response_model=ModelList)
async def models(call: Call) -> Response:
    """The served model and its adapters."""
    names = (*call.service.names, *call.service.adapters)
    data = [_described(call.service, name) for name in names]
    return json_response(ModelList(data=data, first_id=names[0], last_id=names[-1]))


@router.get("/{model:path}", response_model=Model)
async def model(call: Call, model: str) -> Response:
    """One model."""
    call.service.check_model(model, param=None)
    return json_response(_described(call.service, model))


def _described(service: Service, name: str) -> Model:
    abilities = Abilities(chat=service.parts.chat is not None, drafters=service.parts.engine.planner.sources)
    parent = service.name if name in service.adapters else None
    return Model(id=name, display_name=name, max_model_len=service.context, parent=parent, outrider=abilities)
