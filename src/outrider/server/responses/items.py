"""Items of a conversation, and their translation to messages of the chat route.

See https://platform.openai.com/docs/api-reference/responses/create.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from functools import cache
from typing import Any

from outrider.server.responses.shapes import item_id
from outrider.server.responses.tools import CUSTOM_INPUT, shown_name

Item = dict[str, Any]

REFERENCE = "item_reference"
_log = logging.getLogger("outrider.server")
_CALLS = ("function_call", "custom_tool_call")
_RESULTS = ("function_call_output", "custom_tool_call_output")
_TEXTS = ("input_text", "output_text", "text", "refusal", "reasoning_text", "summary_text")
_HOSTED = (
    *("web_search_call", "file_search_call", "code_interpreter_call", "image_generation_call"),
    *("computer_call", "computer_call_output", "local_shell_call", "local_shell_call_output"),
    *("shell_call", "shell_call_output", "apply_patch_call", "apply_patch_call_output"),
    *("mcp_list_tools", "mcp_call", "mcp_approval_request", "mcp_approval_response"),
)
"""What tools left behind that this server does not run."""
_THOUGHT = "outrider-thought:"
"""Begins an `encrypted_content`. It is opaque to clients and no secret: they have the thought itself."""


def opaque_thought(thought: str) -> str:
    """The `encrypted_content` of a reasoning item."""
    return _THOUGHT + thought


def kind_of(item: Item) -> str:
    """The item's type; a message may leave it out."""
    return str(item.get("type") or ("message" if "role" in item else ""))


def messages_of(items: Sequence[Item]) -> list[dict[str, Any]]:
    """The messages of these items, in the chat route's form. Thoughts, text and calls in this order are one turn.

    Raises:
        ValueError: an item is of a kind that the model cannot read; the message begins with its number.
    """
    turns = _Turns()
    for number, item in enumerate(items):
        try:
            turns.add(item)
        except ValueError as error:
            raise ValueError(f"item {number}: {error}") from error
    return turns.messages


def with_ids(items: Sequence[Item], response: str) -> list[Item]:
    """The input of a response as it is listed: each item with an id, a message's content as a list of parts."""
    return [_listed(item, item_id("item", response, f"in{number}")) for number, item in enumerate(items)]


def _listed(item: Item, own_id: str) -> Item:
    listed: Item = {"id": own_id, "type": kind_of(item), "status": "completed"}
    listed |= {name: value for name, value in item.items() if value is not None}
    content = item.get("content")
    if listed["type"] == "message" and isinstance(content, str):
        said: Item = {"type": "output_text", "annotations": []} if item.get("role") == "assistant" else {}
        listed["content"] = [{"type": "input_text", **said, "text": content}]
    return listed


@cache
def _report(kind: str) -> None:
    """Logs each kind once."""
    _log.warning("items of type %s are left out: this server does not run the tool", kind)


class _Turns:
    """Collects messages. The parts of one assistant turn follow each other in the order of `_ORDER`."""

    _ORDER = ("reasoning_content", "content", "tool_calls")

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self._last: int | None = None  # what the open assistant turn has last, as an index of `_ORDER`

    def add(self, item: Item) -> None:
        """Adds one item."""
        kind, role = kind_of(item), item.get("role")
        if kind == "message" and role == "assistant":
            self._extend("content", _parts(item.get("content")))
        elif kind == "message" and role in ("user", "system", "developer"):
            self._close({"role": role, "content": _parts(item.get("content"))})
        elif kind == "message":
            raise ValueError(f"the role {role!r} is none of user, assistant, system and developer")
        elif kind == "reasoning":
            self._extend("reasoning_content", _thought(item))
        elif kind in _CALLS:
            self._extend("tool_calls", [_call(item, kind)])
        elif kind in _RESULTS:
            call = str(item.get("call_id") or "")
            self._close({"role": "tool", "tool_call_id": call, "content": _parts(item.get("output"))})
        elif kind in _HOSTED:
            _report(kind)
        else:
            raise ValueError(f"the type {kind!r} is not supported: give messages, reasoning, calls and their outputs")

    def _extend(self, field: str, value: Any) -> None:
        place = self._ORDER.index(field)
        if self._last is None or place < self._last or (place == self._last and field == "content"):
            self.messages.append({"role": "assistant", "content": ""})
        turn = self.messages[-1]
        turn[field] = turn[field] + value if field in turn and field != "content" else value
        self._last = place

    def _close(self, message: dict[str, Any]) -> None:
        self.messages.append(message)
        self._last = None


def _parts(content: Any) -> Any:
    """Content in the chat route's types of parts."""
    if isinstance(content, list):
        return [_part(part) for part in content]
    return content if content is None or isinstance(content, str) else json.dumps(content, ensure_ascii=False)


def _part(part: Any) -> dict[str, Any]:
    if not isinstance(part, dict):
        raise ValueError(f"a part of its content is no object: {part!r:.80}")
    if part.get("type") in _TEXTS:
        return {"type": "text", "text": str(part.get("text") or part.get("refusal") or "")}
    return part


def _thought(item: Item) -> str:
    """The thought itself, else what this server sent in its place, else its summary."""
    content, opaque = item.get("content"), item.get("encrypted_content")
    if content:
        return _text(content)
    if isinstance(opaque, str) and opaque.startswith(_THOUGHT):
        return opaque.removeprefix(_THOUGHT)
    return _text(item.get("summary") or ())


def _text(parts: Any) -> str:
    return "\n\n".join(str(part.get("text") or "") for part in parts if isinstance(part, dict))


def _call(item: Item, kind: str) -> dict[str, Any]:
    given = item.get("arguments") if kind == "function_call" else {CUSTOM_INPUT: item.get("input") or ""}
    arguments = given if isinstance(given, str) else json.dumps(given or {}, ensure_ascii=False)
    called = {"name": shown_name(str(item.get("name") or ""), item.get("namespace")), "arguments": arguments}
    return {"id": str(item.get("call_id") or ""), "type": "function", "function": called}
