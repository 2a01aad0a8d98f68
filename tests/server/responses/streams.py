"""Reads responses and their events, each checked by the types of OpenAI's client."""

from __future__ import annotations

import json
from typing import Any

import httpx
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

_EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)


def post(url: str, body: dict[str, Any], **options: Any) -> Response:
    """A whole response."""
    found = httpx.post(f"{url}/v1/responses", json=body, timeout=60, **options)
    assert found.status_code == 200, found.text
    return Response.model_validate(found.json())


def events(url: str, body: dict[str, Any], **options: Any) -> list[Any]:
    """The events of a stream."""
    with httpx.stream("POST", f"{url}/v1/responses", json=body | {"stream": True}, timeout=60, **options) as stream:
        return parsed(list(stream.iter_lines()))


def parsed(lines: list[str], first: int = 0) -> list[Any]:
    """The events of a stream's lines: named as their types, numbered without a gap."""
    found = [
        (name.removeprefix("event: "), json.loads(data.removeprefix("data: ")))
        for name, data, blank in zip(lines[::3], lines[1::3], lines[2::3], strict=True)
        if not blank
    ]
    assert [name for name, _ in found] == [event["type"] for _, event in found]
    assert [event["sequence_number"] for _, event in found] == list(range(first, first + len(found)))
    return [_EVENT.validate_python(event) for _, event in found]


def rebuilt(found: list[Any]) -> list[dict[str, Any]]:
    """The items that a client puts together from the deltas alone."""
    items: list[dict[str, Any]] = []
    for event in found:
        match event.type:
            case "response.output_item.added":
                assert event.output_index == len(items)
                items.append({"type": event.item.type, "id": event.item.id, "text": ""})
            case (
                "response.output_text.delta"
                | "response.reasoning_text.delta"
                | "response.reasoning_summary_text.delta"
                | "response.function_call_arguments.delta"
                | "response.custom_tool_call_input.delta"
            ):
                assert items[event.output_index]["id"] == event.item_id
                items[event.output_index]["text"] += event.delta
            case "response.output_item.done":
                assert text_of(event.item) == items[event.output_index]["text"]
    return items


def text_of(item: Any) -> str:
    """What an item holds."""
    match item.type:
        case "message":
            return "".join(part.text for part in item.content)
        case "reasoning":
            return "".join(part.text for part in item.content or item.summary)
        case "function_call":
            return str(item.arguments)
    return str(item.input)


def said(response: Response) -> list[tuple[str, str]]:
    """The items' types and texts."""
    return [(item.type, text_of(item)) for item in response.output]
