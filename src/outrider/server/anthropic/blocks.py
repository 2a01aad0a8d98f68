"""Anthropic's content blocks in the form of chat templates, which is OpenAI's.

See https://docs.claude.com/en/api/messages.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

Block = dict[str, Any]
Content = str | Sequence[Block] | None


def for_template(role: str, content: Content) -> list[dict[str, Any]]:
    """The messages of one of Anthropic's: results of tools come as messages of their own, before the user's text."""
    blocks = [{"type": "text", "text": content}] if isinstance(content, str) else list(content or ())
    if role == "assistant":
        return [_assistant(blocks)]
    results = [_result(block) for block in blocks if block.get("type") == "tool_result"]
    others = [_part(block) for block in blocks if block.get("type") != "tool_result"]
    return [*results, {"role": role, "content": others}] if others or not results else results


def _part(block: Block) -> Block:
    """A content part. A block that is no text stays as it is: `chat.messages` refuses it, or leaves a mark for it."""
    kind, source = block.get("type"), block.get("source")
    if kind == "document" and isinstance(source, dict) and source.get("type") in ("text", "content"):
        body = source.get("data") if source["type"] == "text" else _text(source.get("content"))
        return {"type": "text", "text": f"{block.get('title') or 'Document'}:\n{body}\n\n"}
    if kind == "search_result":
        head = f"{block.get('title') or ''} ({source or ''})"
        return {"type": "text", "text": f"{head}:\n{_text(block.get('content'))}\n\n"}
    return block


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "".join(str(part.get("text") or "") for part in _list(content) if isinstance(part, dict))


def _list(content: Any) -> list[Any]:
    """A block's content as a list of blocks: a tool's result may be any JSON, and must not end a conversation."""
    if content is None or isinstance(content, list):
        return list(content or ())
    return [content if isinstance(content, str | dict) else json.dumps(content)]


def _assistant(blocks: Sequence[Block]) -> dict[str, Any]:
    thoughts = [str(block.get("thinking") or "") for block in blocks if block.get("type") == "thinking"]
    uses = [block for block in blocks if block.get("type") == "tool_use"]
    rest = [block for block in blocks if block.get("type") not in ("thinking", "redacted_thinking", "tool_use")]
    message: dict[str, Any] = {"role": "assistant", "content": [_part(block) for block in rest]}
    if any(thoughts):
        message["reasoning_content"] = "\n".join(thoughts)
    if uses:
        message["tool_calls"] = [_call(block) for block in uses]
    return message


def _call(block: Block) -> dict[str, Any]:
    called = {"name": block.get("name"), "arguments": block.get("input")}
    return {"id": block.get("id"), "type": "function", "function": called}


def _result(block: Block) -> dict[str, Any]:
    parts = _list(block.get("content"))
    if block.get("is_error"):
        parts.insert(0, {"type": "text", "text": "Error: "})
    return {"role": "tool", "tool_call_id": block.get("tool_use_id"), "content": parts}
