"""The server's description of itself, `GET /openapi.json`, made from the models that requests are checked with."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from outrider import __version__
from outrider.server.schema import ChatRequest, CompletionRequest
from outrider.server.shapes import ChatAnswer, CompletionAnswer, ErrorAnswer, Health, ModelEntry, ModelList

_REQUESTS: tuple[type[BaseModel], ...] = (CompletionRequest, ChatRequest)
_ANSWERS: tuple[type[BaseModel], ...] = (CompletionAnswer, ChatAnswer, ModelEntry, ModelList, Health, ErrorAnswer)

_PROBLEMS = {
    400: "The request is wrong: the message says where, and what to do.",
    401: "The API key is missing or wrong.",
    403: "A web page of another site sent this, or sent it to another name.",
    404: "There is no such model.",
    408: "The body did not come in time.",
    413: "The body is too large.",
    415: "The body is not application/json.",
    429: "Too many requests wait.",
    500: "A fault of the server: its log says more.",
    503: "The request waited too long for a place, or failed, or the server is shutting down.",
    504: "The request ran too long.",
}
_LATER = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}}


def describe(*, keyed: bool) -> dict[str, Any]:
    """An OpenAPI 3.1 document.

    Args:
        keyed: whether an API key is asked for.
    """
    modes: list[tuple[type[BaseModel], JsonSchemaMode]] = [(model, "validation") for model in _REQUESTS]
    modes += [(model, "serialization") for model in _ANSWERS]
    _, schemas = models_json_schema(modes, ref_template="#/components/schemas/{model}")
    document: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": "outrider",
            "version": __version__,
            "description": "Completions and chat for clients of the OpenAI API, drafted and verified.",
        },
        "paths": {
            "/v1/completions": {"post": _answering("The text goes on.", CompletionRequest, CompletionAnswer)},
            "/v1/chat/completions": {"post": _answering("The model's next turn.", ChatRequest, ChatAnswer)},
            "/v1/models": {"get": _reading("The model.", ModelList, 401, 403, 500)},
            "/v1/models/{model}": {"get": _reading("The model.", ModelEntry, 401, 403, 404, 500) | _NAMED},
            "/health": {"get": {**_reading("Whether requests are taken.", Health, 403), "security": []}},
            "/metrics": {"get": _metrics()},
        },
        "components": {"schemas": schemas["$defs"]},
    }
    if keyed:
        document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"key": []}]
    return document


_NAMED = {"parameters": [{"name": "model", "in": "path", "required": True, "schema": {"type": "string"}}]}


def _answering(summary: str, asked: type[BaseModel], answered: type[BaseModel]) -> dict[str, Any]:
    stream = {"schema": {"description": "Server-sent events, where `stream` is true."}}
    content = {"application/json": {"schema": _reference(answered)}, "text/event-stream": stream}
    return {
        "summary": summary,
        "requestBody": {"required": True, "content": {"application/json": {"schema": _reference(asked)}}},
        "responses": {"200": {"description": "The answer.", "content": content}} | _problems(*_PROBLEMS),
    }


def _reading(summary: str, answered: type[BaseModel], *problems: int) -> dict[str, Any]:
    content = {"application/json": {"schema": _reference(answered)}}
    return {
        "summary": summary,
        "responses": {"200": {"description": summary, "content": content}} | _problems(*problems),
    }


def _metrics() -> dict[str, Any]:
    content = {"text/plain": {"schema": {"type": "string"}}}
    responses = {"200": {"description": "Prometheus metrics.", "content": content}} | _problems(401, 403, 500)
    return {"summary": "Metrics.", "responses": responses}


def _problems(*statuses: int) -> dict[str, Any]:
    content = {"application/json": {"schema": _reference(ErrorAnswer)}}
    return {
        str(status): {
            "description": _PROBLEMS[status],
            "content": content,
            **({"headers": _LATER} if status in (429, 503) else {}),
        }
        for status in statuses
    }


def _reference(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{model.__name__}"}
