"""`GET /v1/models`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel
from starlette.responses import Response

from outrider.server.openai.shapes import ERRORS, omitted
from outrider.server.route import ApiRoute, Call, json_response
from outrider.server.slot import Slot, State

router = APIRouter(prefix="/v1/models", route_class=ApiRoute, responses=ERRORS)


class Abilities(BaseModel):
    """Whether the model has a chat template, which drafters are active (none until it is loaded), and its state; a
    request loads one that is unloaded."""

    chat: bool
    drafters: Sequence[str]
    state: State


class Model(BaseModel):
    """A model or an adapter of one, in OpenAI's fields and in Anthropic's. `parent`: as vLLM names an adapter's."""

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
    """All models."""

    object: Literal["list"] = "list"
    data: list[Model]
    has_more: bool = False
    first_id: str
    last_id: str


@router.get("", response_model=ModelList)
async def models(call: Call) -> Response:
    """The models and their adapters, loaded or not."""
    names = call.models.names
    data = [_described(call.models.find(name), name) for name in names]
    return json_response(ModelList(data=data, first_id=names[0], last_id=names[-1]))


@router.get("/{model:path}", response_model=Model)
async def model(call: Call, model: str) -> Response:
    """One model."""
    return json_response(_described(call.models.find(model, param=None), model))


def _described(slot: Slot, name: str) -> Model:
    about = slot.about
    assert about is not None
    abilities = Abilities(chat=about.chat, drafters=about.drafters, state=slot.state)
    parent = slot.name if name in slot.adapters else None
    return Model(id=name, display_name=name, max_model_len=about.context, parent=parent, outrider=abilities)
