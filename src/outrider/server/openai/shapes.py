"""What several routes of OpenAI's API return."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, Field

from outrider.engine.outputs import RequestOutput


def omitted() -> Any:
    """A field that is left out where it is None."""
    return Field(default=None, exclude_if=lambda value: value is None)


class Error(BaseModel):
    """What is wrong, in which field, and what to do."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorResponse(BaseModel):
    """Every error has this form."""

    error: Error


ERRORS: dict[int | str, dict[str, Any]] = {
    "4XX": {
        "model": ErrorResponse,
        "description": "The request is wrong (400), or its API key (401), Host or Origin (403), model or route (404), "
        "method (405), size (413), Content-Type (415); or it arrives too slowly (408), or the queue is full (429).",
    },
    "5XX": {
        "model": ErrorResponse,
        "description": "An internal error (500); a time limit in the queue, or shutdown (503); a time limit (504).",
    },
}
"""OpenAPI responses of every route."""
STREAM: dict[str, Any] = {"content": {"text/event-stream": {"schema": {"description": "If `stream` is true."}}}}


class PromptTokensDetails(BaseModel):
    """Prompt tokens found in the prefix cache."""

    cached_tokens: int


class CompletionTokensDetails(BaseModel):
    """Drafted tokens, by whether the target accepted them."""

    accepted_prediction_tokens: int
    rejected_prediction_tokens: int


class Usage(BaseModel):
    """Token counts. A prompt counts once, whatever the number of answers."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails
    completion_tokens_details: CompletionTokensDetails

    @classmethod
    def of(cls, outputs: Sequence[RequestOutput]) -> Usage:
        """Of all answers to one prompt."""
        prompt = len(outputs[0].prompt_token_ids)
        completion = sum(len(out.token_ids) for out in outputs)
        return cls(
            prompt_tokens=prompt,
            completion_tokens=completion,
            total_tokens=prompt + completion,
            prompt_tokens_details=PromptTokensDetails(cached_tokens=outputs[0].stats.reused_tokens),
            completion_tokens_details=CompletionTokensDetails(
                accepted_prediction_tokens=sum(out.stats.accepted for out in outputs),
                rejected_prediction_tokens=sum(out.stats.drafted - out.stats.accepted for out in outputs),
            ),
        )
