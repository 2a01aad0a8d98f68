"""Conversations for templates that know less: no tools, roles that take turns, no system message."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any

from outrider.chat import json_calls
from outrider.chat.messages import Message, joined


def without_tools(messages: Sequence[Message], tools: Sequence[Mapping[str, Any]]) -> list[Message]:
    """Tools, calls and results as text: in the system message, the assistant's turn, and the user's turn after it."""
    if not tools and not any(message["role"] == "tool" or message.get("tool_calls") for message in messages):
        return list(messages)
    names: dict[str, str] = {}
    folded: list[Message] = []
    for message in messages:
        calls = message.get("tool_calls", [])
        names |= {call["id"]: call["function"]["name"] for call in calls}
        if calls:
            written = json_calls.written([call["function"] for call in calls])
            folded.append(_as("assistant", joined([message["content"], written]), message))
        elif message["role"] == "tool":
            name = message.get("name") or names.get(message.get("tool_call_id", ""), "")
            folded.append(_as("user", json_calls.result(name, message["content"]), {}))
        else:
            folded.append(dict(message))
    if tools:
        described = json_calls.described(tools)
        lead = folded.pop(0) if folded and folded[0]["role"] == "system" else _as("system", "", {})
        folded.insert(0, _as("system", joined([lead["content"], described]), lead))
    return _merged(folded)


def alternating(messages: Sequence[Message], *, system: bool) -> list[Message]:
    """The same conversation with one system message, then user and assistant in turns, the user first.

    Neighbours of one role become one message. A system message further down is the user's.

    Args:
        system: the template knows system messages; without it, the first turn begins with their text.
    """
    lead = list(takewhile(lambda message: message["role"] == "system", messages))
    rest = [{**m, "role": "user"} if m["role"] == "system" else m for m in messages[len(lead) :]]
    first = [_as("system" if system else "user", joined(m["content"] for m in lead), {})] if lead else []
    if rest and rest[0]["role"] == "assistant":
        rest.insert(0, _as("user", "", {}))
    return _merged([*first, *rest])


def _merged(messages: Sequence[Message]) -> list[Message]:
    """Neighbours of one role as one message, with a blank line between them."""
    merged: list[Message] = []
    for message in messages:
        last = merged[-1] if merged else None
        if last is None or last["role"] != message["role"] or message["role"] == "tool":
            merged.append(dict(message))
            continue
        last["content"] = joined([last["content"], message["content"]])
        if calls := [*last.get("tool_calls", []), *message.get("tool_calls", [])]:
            last["tool_calls"] = calls
    return merged


def _as(role: str, content: str, message: Message) -> Message:
    """The message with another role and content, and without calls."""
    return {name: value for name, value in message.items() if name != "tool_calls"} | {"role": role, "content": content}
