"""Messages as clients send them -> as chat templates read them.

A history holds what models once wrote and what other programs made of it. It is shown as far as it can be read, and a
warning names the message: a conversation is never locked by its past.
"""

from __future__ import annotations

import json
import logging
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from outrider.chat.arguments import read_arguments
from outrider.errors import UsageError, given

_log = logging.getLogger("outrider.chat")

Message = dict[str, Any]

_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
_ROLES |= {"tool": "tool", "function": "tool"}
_TEXTS = {"text": "text", "input_text": "text", "output_text": "text", "refusal": "refusal"}
"""Types of content parts that are text -> the field that holds it."""
_MEDIA = {
    **dict.fromkeys(("image", "image_url", "input_image"), "image"),
    **dict.fromkeys(("audio", "audio_url", "input_audio"), "audio"),
    **dict.fromkeys(("video", "video_url", "input_video"), "video"),
    **dict.fromkeys(("file", "input_file", "document"), "file"),
}


class MessagesError(UsageError):
    """Messages that cannot be read, or that the chat template refuses."""


def read_messages(messages: Sequence[Mapping[str, Any]], *, ignore_media: bool = False) -> list[Message]:
    """Each message with its role, its content as one text, and its calls with an object of arguments.

    Args:
        ignore_media: put "[image]" and the like in the place of parts that are no text.

    Raises:
        MessagesError: a role is unknown, or a part of the content cannot be read; the message says which.
    """
    return [_read(f"messages[{index}]", message, ignore_media) for index, message in enumerate(messages)]


def _read(where: str, message: Mapping[str, Any], ignore_media: bool) -> Message:
    role = message.get("role")
    if not isinstance(role, str) or role not in _ROLES:
        raise MessagesError(f"{where} has the role {given(role)}: use one of {', '.join(_ROLES)}")
    read: Message = {"role": _ROLES[role], "content": _text(where, message.get("content"), ignore_media)}
    old = message.get("function_call")  # what calls were before tools
    calls = message.get("tool_calls") or ([{"function": old}] if old else [])
    calls = calls if isinstance(calls, list | tuple) else [calls]
    if found := [call for call in map(_call, [where] * len(calls), calls) if call is not None]:
        read["tool_calls"] = found
    read |= {name: text for name in ("name", "tool_call_id") if isinstance(text := message.get(name), str)}
    reasoning = message.get("reasoning_content") or message.get("reasoning")
    if isinstance(reasoning, str):
        read |= {"reasoning_content": reasoning, "reasoning": reasoning}  # templates know it by either name
    return read


def _text(where: str, content: Any, ignore_media: bool) -> str:
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    parts = [content] if isinstance(content, Mapping) and "type" in content else content
    if not isinstance(parts, list | tuple):
        return json.dumps(content, ensure_ascii=False, default=str)  # a tool's result that was not made a text
    return "".join(_part(where, part, ignore_media) for part in parts)


def _part(where: str, part: Any, ignore_media: bool) -> str:
    if isinstance(part, str):
        return part
    kind = part.get("type", "text") if isinstance(part, Mapping) else None
    if isinstance(kind, str) and kind in _TEXTS:
        return str(part.get(_TEXTS[kind]) or "")
    medium = _MEDIA.get(kind) if isinstance(kind, str) else None
    if medium is None:
        raise MessagesError(f"{where} has a content part of the type {given(kind)}: use parts of the type text")
    if not ignore_media:
        raise MessagesError(
            f"{where} has a content part of the type {kind}, and this model reads text alone: leave it out, or use "
            f"ignore_media (outrider serve --ignore-media) to have [{medium}] in its place"
        )
    _log.warning("%s: a part of the type %s was replaced by [%s]", where, kind, medium)
    return f"[{medium}]"


def _call(where: str, call: Any) -> Message | None:
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        _log.warning("%s: a tool call without a function's name was left out", where)
        return None
    arguments, problem = read_arguments(function.get("arguments"))
    if problem is not None:
        _log.warning("%s: the arguments of a call of %s %s", where, reprlib.repr(function["name"]), problem)
    called = {"name": function["name"], "arguments": arguments}
    return {"id": str(call.get("id") or ""), "type": "function", "function": called}


def joined(texts: Iterable[str]) -> str:
    """Texts with a blank line between them."""
    return "\n\n".join(text for text in texts if text)
