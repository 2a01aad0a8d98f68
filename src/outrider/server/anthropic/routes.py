"""`POST /v1/messages` and `POST /v1/messages/count_tokens`."""

from __future__ import annotations

import json
import secrets
from typing import Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel
from starlette.responses import Response

from outrider.chat.markers import Markers
from outrider.server.anthropic.request import MessagesRequest, Prompted
from outrider.server.anthropic.response import AnswerMessage, message_events, whole_message
from outrider.server.conversation import chat_generation
from outrider.server.errors import ApiError
from outrider.server.event_stream import EventStream
from outrider.server.generation import Generation
from outrider.server.openai.shapes import STREAM
from outrider.server.route import ApiRoute, Call, json_response

_KINDS = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


class ErrorDetail(BaseModel):
    """What is wrong, in which field, and what to do."""

    type: str
    message: str


class ErrorResponse(BaseModel):
    """Every error has this form."""

    type: Literal["error"] = "error"
    error: ErrorDetail
    request_id: str


class AnthropicRoute(ApiRoute):
    """A route whose errors have Anthropic's form."""

    @staticmethod
    def error_body(error: ApiError) -> dict[str, Any]:
        """An error as Anthropic writes it."""
        kind = _KINDS.get(error.status, "api_error" if error.status >= 500 else "invalid_request_error")
        detail = ErrorDetail(type=kind, message=str(error))
        return ErrorResponse(error=detail, request_id=f"req_{secrets.token_hex(12)}").model_dump()

    @classmethod
    def error_event(cls, error: ApiError) -> str:
        """The end of a stream that fails."""
        return f"event: error\ndata: {json.dumps(cls.error_body(error), ensure_ascii=False)}\n\n"


_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorResponse, "description": description}
    for status, description in (("4XX", "The request is wrong."), ("5XX", "It failed here, or the server is busy."))
}
router = APIRouter(prefix="/v1/messages", route_class=AnthropicRoute, responses=_ERRORS)


class TokenCount(BaseModel):
    """Tokens of a prompt."""

    input_tokens: int


@router.post("", response_model=AnswerMessage, responses={200: STREAM})
async def messages(call: Call, asked: MessagesRequest) -> Response:
    """The model's next turn."""
    service = call.service
    generation, markers = await call.host.in_thread(_generation, call, asked)
    run = await service.begin(generation)
    reader, show = markers.reader(), asked.thinking is None or asked.thinking.display != "omitted"
    if asked.stream:
        length = len(generation.prompts[0][0])
        events = message_events(asked.model or service.name, reader, run, prompt_tokens=length, show_thoughts=show)
        return EventStream(call, run, events)
    (out,) = await call.outputs(run)
    return json_response(whole_message(asked.model or service.name, reader, out, show_thoughts=show))


@router.post("/count_tokens", response_model=TokenCount)
async def count_tokens(call: Call, asked: Prompted) -> Response:
    """The length of the prompt that a request makes."""
    counted = asked.model_dump(by_alias=True) | {"max_tokens": 1}
    generation, _ = await call.host.in_thread(_generation, call, MessagesRequest.checked(counted))
    return json_response(TokenCount(input_tokens=len(generation.prompts[0][0])))


def _generation(call: Call, asked: MessagesRequest) -> tuple[Generation, Markers]:
    salt = call.cache_salt(asked.cache_salt)
    return chat_generation(call.service, asked.turn(), asked.sampling(), cache_salt=salt, logprobs=None)
