"""Conversations in files: JSON in the form of the OpenAI API, {"messages": [{"role": ..., "content": ...}, ...]}."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypedDict

from outrider.atomic_file import replacing
from outrider.errors import UsageError

_ROLES = ("system", "user", "assistant")
_MOST_BYTES = 1 << 26


class Message(TypedDict):
    """One turn, or the system text before the first."""

    role: str
    content: str


def write_messages(path: Path, messages: Sequence[Message]) -> None:
    """Writes a conversation: the whole file or, if that fails, nothing.

    Raises:
        UsageError: the file cannot be written.
    """
    try:
        with replacing(path) as partial:
            text = json.dumps({"messages": messages}, ensure_ascii=False, indent=2)
            # A lone surrogate, typed as an invalid byte, has no UTF-8; escaped it is JSON.
            partial.write_text(text + "\n", encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise UsageError(f"{path} cannot be written ({error.strerror}): name another file") from error


def read_messages(path: Path) -> list[Message]:
    """A conversation that `write_messages` or a client of the OpenAI API wrote, or the bare list of its messages.

    Raises:
        UsageError: the file cannot be read, or holds no conversation of texts.
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise UsageError(f"{path} is larger than {_MOST_BYTES >> 20} MiB, which no conversation is")
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror}): check its path") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is not JSON ({error}): load a file that /save wrote") from error
    listed = found.get("messages") if isinstance(found, dict) else found
    if not isinstance(listed, list) or not listed:
        raise UsageError(f'{path} holds no messages: expected {{"messages": [{{"role": "user", "content": "..."}}]}}')
    return [message_of(entry, f"{path}: messages[{number}]", first=number == 0) for number, entry in enumerate(listed)]


def message_of(entry: Any, where: str, *, first: bool) -> Message:
    """An object of a file as a message. Raises UsageError, beginning with `where`."""
    role, content = (entry.get("role"), entry.get("content")) if isinstance(entry, dict) else (None, None)
    if role not in _ROLES or not isinstance(content, str):
        raise UsageError(f"{where} is no message: expected a role ({', '.join(_ROLES)}) and a text as content")
    if role == "system" and not first:
        raise UsageError(f"{where} is a system message: only the first message may be one")
    return Message(role=role, content=content)
