"""The response object and its items, as OpenAI writes them.

See https://platform.openai.com/docs/api-reference/responses/object.
"""

from __future__ import annotations

import json
import secrets
import time
from typing import Any, Literal

from pydantic import BaseModel, Field

from outrider.engine.outputs import RequestOutput
from outrider.server.openai.logprobs import ChatTokenLogprob
from outrider.server.openai.shapes import omitted

Status = Literal["in_progress", "completed", "incomplete", "failed", "cancelled"]
ItemStatus = Literal["in_progress", "completed", "incomplete"]


def as_json(value: Any) -> str:
    """JSON text, which UTF-8 can encode even where the request holds half of a surrogate pair."""
    dumped = value.model_dump() if isinstance(value, BaseModel) else value
    return json.dumps(dumped, ensure_ascii=False).encode("utf-8", "backslashreplace").decode()


def new_id() -> str:
    """A response's id, which cannot be guessed."""
    return f"resp_{secrets.token_hex(24)}"


def item_id(kind: str, response: str, number: int | str) -> str:
    """The id of a response's item, from which `response_of` finds the response."""
    return f"{kind}_{response.removeprefix('resp_')}_{number}"


def response_of(item: str) -> str | None:
    """The id of the response that an item belongs to; None if the item's id is not one of this server's."""
    parts = item.split("_")
    return f"resp_{parts[1]}" if len(parts) == 3 else None


class OutputText(BaseModel):
    """A text by the model."""

    type: Literal["output_text"] = "output_text"
    text: str = ""
    annotations: list[Any] = Field(default_factory=list)
    logprobs: list[ChatTokenLogprob] = Field(default_factory=list)


class MessageItem(BaseModel):
    """What the model says."""

    id: str
    type: Literal["message"] = "message"
    role: Literal["assistant"] = "assistant"
    status: ItemStatus = "in_progress"
    content: list[OutputText] = Field(default_factory=list)


class ThoughtText(BaseModel):
    """A thought, or what stands for it."""

    type: Literal["reasoning_text", "summary_text"]
    text: str = ""


class ReasoningItem(BaseModel):
    """What the model thinks: in `content`, or in `summary` where the request asks for one.

    encrypted_content: the thought for clients that give back only this; see `items.opaque_thought`.
    """

    id: str
    type: Literal["reasoning"] = "reasoning"
    status: ItemStatus = "in_progress"
    summary: list[ThoughtText] = Field(default_factory=list)
    content: list[ThoughtText] | None = omitted()
    encrypted_content: str | None = None


class CallItem(BaseModel):
    """What the calls of functions and of custom tools have in common."""

    id: str
    status: ItemStatus = "in_progress"
    call_id: str = Field(default_factory=lambda: f"call_{secrets.token_hex(12)}")
    name: str
    namespace: str | None = omitted()


class FunctionCallItem(CallItem):
    """A call of a function."""

    type: Literal["function_call"] = "function_call"
    arguments: str = ""


class CustomCallItem(CallItem):
    """A call of a custom tool."""

    type: Literal["custom_tool_call"] = "custom_tool_call"
    input: str = ""


OutputItem = MessageItem | ReasoningItem | FunctionCallItem | CustomCallItem


class InputDetails(BaseModel):
    """Prompt tokens found in the prefix cache."""

    cached_tokens: int
    cache_write_tokens: int = 0


class OutputDetails(BaseModel):
    """Tokens of thoughts."""

    reasoning_tokens: int


class ResponseUsage(BaseModel):
    """Token counts."""

    input_tokens: int
    input_tokens_details: InputDetails
    output_tokens: int
    output_tokens_details: OutputDetails
    total_tokens: int

    @classmethod
    def of(cls, out: RequestOutput) -> ResponseUsage:
        """Of a finished answer."""
        prompt, answer = len(out.prompt_token_ids), len(out.token_ids)
        return cls(
            input_tokens=prompt,
            input_tokens_details=InputDetails(cached_tokens=out.stats.reused_tokens),
            output_tokens=answer,
            output_tokens_details=OutputDetails(reasoning_tokens=out.stats.reasoning_tokens),
            total_tokens=prompt + answer,
        )


class ResponseError(BaseModel):
    """Why a response failed."""

    code: str
    message: str


class IncompleteDetails(BaseModel):
    """Why a response is incomplete."""

    reason: Literal["max_output_tokens"] = "max_output_tokens"


class ResponseObject(BaseModel):
    """A turn of the model, and the request's settings. `outrider`: its statistics."""

    id: str = Field(default_factory=new_id)
    object: Literal["response"] = "response"
    created_at: int = Field(default_factory=lambda: int(time.time()))
    completed_at: int | None = None
    status: Status = "in_progress"
    background: bool
    error: ResponseError | None = None
    incomplete_details: IncompleteDetails | None = None
    instructions: Any = None
    max_output_tokens: int | None = None
    metadata: dict[str, str]
    model: str
    output: list[OutputItem] = Field(default_factory=list)
    parallel_tool_calls: bool
    previous_response_id: str | None = None
    prompt_cache_key: str | None = None
    reasoning: dict[str, Any]
    safety_identifier: str | None = None
    service_tier: Literal["default"] = "default"
    store: bool
    temperature: float
    text: dict[str, Any]
    tool_choice: Any
    tools: list[dict[str, Any]]
    top_logprobs: int = 0
    top_p: float
    truncation: Literal["auto", "disabled"]
    usage: ResponseUsage | None = None
    user: str | None = None
    outrider: dict[str, Any] = Field(default_factory=dict)


class ItemList(BaseModel):
    """Items of a response."""

    object: Literal["list"] = "list"
    data: list[dict[str, Any]]
    first_id: str
    last_id: str
    has_more: bool


class Deleted(BaseModel):
    """A response that is no longer stored."""

    id: str
    object: Literal["response"] = "response"
    deleted: Literal[True] = True


class InputTokens(BaseModel):
    """The length of a prompt."""

    object: Literal["response.input_tokens"] = "response.input_tokens"
    input_tokens: int
