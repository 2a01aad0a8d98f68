"""What the routes answer, for the server's own description; `answers.py` makes it. Fields that clients of OpenAI's API
do not know are open objects here."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel


class Problem(BaseModel):
    """What was wrong, with which field, and what to do."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorAnswer(BaseModel):
    """Every error of the routes under `/v1`."""

    error: Problem


class PromptDetails(BaseModel):
    """Of the prompt's tokens, those whose keys and values were there already."""

    cached_tokens: int


class CompletionDetails(BaseModel):
    """Drafted tokens that were accepted, and those that were not."""

    accepted_prediction_tokens: int
    rejected_prediction_tokens: int


class Usage(BaseModel):
    """Tokens in and out."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails
    completion_tokens_details: CompletionDetails


class TextChoice(BaseModel):
    """One continuation of a prompt."""

    index: int
    text: str
    finish_reason: Literal["stop", "length"]
    logprobs: dict[str, Any] | None


class CompletionAnswer(BaseModel):
    """`POST /v1/completions`. `outrider` has the stats of each choice."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[TextChoice]
    usage: Usage
    outrider: list[dict[str, Any]]


class CalledFunction(BaseModel):
    """`arguments`: a JSON object, as text."""

    name: str
    arguments: str


class ToolCall(BaseModel):
    """A call that the model makes."""

    id: str
    type: Literal["function"]
    function: CalledFunction


class AssistantMessage(BaseModel):
    """The model's turn."""

    role: Literal["assistant"]
    content: str | None
    refusal: None = None
    reasoning_content: str | None = None
    tool_calls: list[ToolCall] | None = None


class ChatChoice(BaseModel):
    """One turn of the model."""

    index: int
    message: AssistantMessage
    finish_reason: Literal["stop", "length", "tool_calls"]
    logprobs: dict[str, Any] | None


class ChatAnswer(BaseModel):
    """`POST /v1/chat/completions`. `outrider` has the stats of each choice."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage
    outrider: list[dict[str, Any]]


class ModelAbilities(BaseModel):
    """Whether there is a chat template, and which drafters work."""

    chat: bool
    drafters: list[str]


class ModelEntry(BaseModel):
    """The model that is served."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    max_model_len: int
    outrider: ModelAbilities


class ModelList(BaseModel):
    """`GET /v1/models`: the one."""

    object: Literal["list"]
    data: list[ModelEntry]


class Health(BaseModel):
    """`GET /health`."""

    status: Literal["ok"]
    running: int
    waiting: int
