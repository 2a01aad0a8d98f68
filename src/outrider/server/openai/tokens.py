"""`POST /tokenize`, `POST /detokenize` and `GET /tokenizer_info`, as vLLM has them."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, Field
from starlette.responses import Response

from outrider.server.errors import ApiError, about
from outrider.server.fields import Fields
from outrider.server.openai.chat import ChatRequest
from outrider.server.openai.shapes import ERRORS, omitted
from outrider.server.openai.tools import Tool
from outrider.server.route import ApiRoute, Call, json_response
from outrider.server.service import Service

router = APIRouter(route_class=ApiRoute, responses=ERRORS)


class TokenizeRequest(Fields):
    """A text, or a conversation, which gets the model's chat template."""

    model: str = ""
    prompt: str | None = None
    messages: list[dict[str, Any]] = Field(default_factory=list)
    tools: list[Tool] = Field(default_factory=list)
    chat_template_kwargs: dict[str, object] = Field(default_factory=dict)
    add_special_tokens: bool = True
    parse_special: bool = True
    return_token_strs: bool = False

    def ids(self, call: Call) -> list[int]:
        """The token ids; runs in a worker thread."""
        if self.messages:
            names = ("messages", "tools", "chat_template_kwargs")
            asked = ChatRequest.checked({name: getattr(self, name) for name in names})
            return asked.generation(call)[0].prompts[0][0]
        if self.prompt is None:
            raise ApiError(400, "prompt: give a text, or messages", param="prompt")
        with about("prompt"):
            prompts = call.service.parts.prompts
            return prompts.encode(self.prompt, add_bos=self.add_special_tokens, parse_special=self.parse_special)


class TokenizeResponse(BaseModel):
    """The token ids, and their texts if asked for."""

    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None = omitted()


class DetokenizeRequest(Fields):
    """Token ids."""

    model: str = ""
    tokens: list[int]

    def text(self, call: Call) -> str:
        """Their text; runs in a worker thread."""
        vocabulary, tokenizer = call.service.parts.target.vocabulary, call.service.tokenizer
        if (wrong := next((token for token in self.tokens if not 0 <= token < vocabulary), None)) is not None:
            raise ApiError(400, f"token id {wrong} is outside the vocabulary of {vocabulary}", param="tokens")
        with about("tokens"):
            return tokenizer.decode(self.tokens, skip_special=False)


class DetokenizeResponse(BaseModel):
    """Their text, control tokens included."""

    prompt: str


class TokenizerInfo(BaseModel):
    """What a client needs to prepare prompts itself. The end token is the first of the model's."""

    bos_token: str | None
    eos_token: str
    chat_template: str | None
    model_max_length: int


@router.post("/tokenize", response_model=TokenizeResponse)
async def tokenize(call: Call, asked: TokenizeRequest) -> Response:
    """Token ids of a text or a conversation."""
    service = call.service
    ids = await call.host.in_thread(asked.ids, call)
    pieces = [service.tokenizer.piece(token, skip_special=False).decode("utf-8", "replace") for token in ids]
    strs = pieces if asked.return_token_strs else None
    return json_response(TokenizeResponse(count=len(ids), max_model_len=service.context, tokens=ids, token_strs=strs))


@router.post("/detokenize", response_model=DetokenizeResponse)
async def detokenize(call: Call, asked: DetokenizeRequest) -> Response:
    """Text of token ids."""
    return json_response(DetokenizeResponse(prompt=await call.host.in_thread(asked.text, call)))


_MODEL = {"in": "query", "name": "model", "schema": {"type": "string"}}


@router.get("/tokenizer_info", response_model=TokenizerInfo, openapi_extra={"parameters": [_MODEL]})
async def tokenizer_info(call: Call) -> Response:
    """Special tokens and the chat template; `?model=` names one of several models."""
    with call.models.lease(call.query_params.get("model", "")) as lease:
        if not lease.take():
            await call.while_connected(lease.ready())
        return json_response(_info(lease.service))


def _info(service: Service) -> TokenizerInfo:
    parts, tokenizer = service.parts, service.tokenizer
    begins = tokenizer.encode("")
    return TokenizerInfo(
        bos_token=tokenizer.decode(begins, skip_special=False) or None,
        eos_token=tokenizer.decode([min(parts.target.config.end_token_ids)], skip_special=False),
        chat_template=None if parts.prompts.template is None else parts.prompts.template.source,
        model_max_length=service.context,
    )
