"""Anthropic's content blocks in the form of chat templates, which is OpenAI's.

See https://docs.claude.com/en/api/messages.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Block = dict[str, Any]
Content = str | Sequence[Block] | None


def for_template(role: str, content: Content) -> list[dict[str, Any]]:
    """The messages of one of Anthropic's: results of tools come as messages of their own, before the user's text.

    Raises:
        ValueError: a block is of a kind that the model cannot read.
    """
    blocks = _blocks(content)
    if role == "assistant":
        return [_assistant(blocks)]
    results = [_result(block) for block in blocks if block.get("type") == "tool_result"]
    others = [block for block in blocks if block.get("type") != "tool_result"]
    return [*results, {"role": role, "content": text_of(others)}] if others or not results else results


def text_of(content: Content) -> str:
    """The text of blocks, a blank line between documents. Raises as `for_template`."""
    return "".join(_text(block) for block in _blocks(content))


def _blocks(content: Content) -> list[Block]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    return list(content or ())


def _text(block: Block) -> str:
    kind, source = block.get("type"), block.get("source")
    if kind == "text":
        return str(block.get("text") or "")
    if kind == "document" and isinstance(source, dict) and source.get("type") in ("text", "content"):
        body = source.get("data") if source["type"] == "text" else text_of(source.get("content"))
        return f"{block.get('title') or 'Document'}:\n{body}\n\n"
    if kind == "search_result":
        return f"{block.get('title') or ''} ({block.get('source') or ''}):\n{text_of(block.get('content'))}\n\n"
    raise ValueError(f"a block has the type {kind!r}, and this model reads text alone: leave it out")


def _assistant(blocks: Sequence[Block]) -> dict[str, Any]:
    thoughts = [str(block.get("thinking") or "") for block in blocks if block.get("type") == "thinking"]
    uses = [block for block in blocks if block.get("type") == "tool_use"]
    rest = [block for block in blocks if block.get("type") not in ("thinking", "redacted_thinking", "tool_use")]
    message: dict[str, Any] = {"role": "assistant", "content": text_of(rest)}
    if any(thoughts):
        message["reasoning_content"] = "\n".join(thoughts)
    if uses:
        message["tool_calls"] = [_call(block) for block in uses]
    return message


def _call(block: Block) -> dict[str, Any]:
    called = {"name": str(block.get("name") or ""), "arguments": block.get("input") or {}}
    return {"id": str(block.get("id") or ""), "type": "function", "function": called}


def _result(block: Block) -> dict[str, Any]:
    text = text_of(block.get("content"))
    failed = "Error: " if block.get("is_error") else ""
    return {"role": "tool", "tool_call_id": str(block.get("tool_use_id") or ""), "content": failed + text}
