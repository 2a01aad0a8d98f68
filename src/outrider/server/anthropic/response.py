"""What `POST /v1/messages` returns: a message of content blocks, or its events.

See https://docs.claude.com/en/docs/build-with-claude/streaming.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncGenerator, Iterator
from typing import Any, Literal

from pydantic import BaseModel, Field

from outrider.chat.calls import Call as FunctionCall
from outrider.chat.reader import AnswerReader, Parts
from outrider.engine.outputs import FinishReason, RequestOutput, StopReason
from outrider.server.generation import Run

MessageEnd = Literal["end_turn", "max_tokens", "stop_sequence", "tool_use"]


class TextBlock(BaseModel):
    """What the model says."""

    type: Literal["text"] = "text"
    text: str


class ThinkingBlock(BaseModel):
    """What the model thinks. `signature` is empty: a thought that comes back is taken as it is."""

    type: Literal["thinking"] = "thinking"
    thinking: str
    signature: str = ""


class ToolUseBlock(BaseModel):
    """A call of a tool."""

    type: Literal["tool_use"] = "tool_use"
    id: str = Field(default_factory=lambda: f"toolu_{secrets.token_hex(12)}")
    name: str
    input: dict[str, Any]


class Usage(BaseModel):
    """Token counts. The prompt's tokens are those of `input_tokens` and those read from the prefix cache."""

    input_tokens: int
    output_tokens: int
    cache_read_input_tokens: int = 0
    cache_creation_input_tokens: int = 0

    @classmethod
    def of(cls, out: RequestOutput) -> Usage:
        """Of a finished answer."""
        cached = out.stats.reused_tokens
        return cls(
            input_tokens=len(out.prompt_token_ids) - cached,
            output_tokens=len(out.token_ids),
            cache_read_input_tokens=cached,
        )


class AnswerMessage(BaseModel):
    """The model's turn. `outrider`: its statistics."""

    id: str = Field(default_factory=lambda: f"msg_{secrets.token_hex(12)}")
    type: Literal["message"] = "message"
    role: Literal["assistant"] = "assistant"
    model: str
    content: list[TextBlock | ThinkingBlock | ToolUseBlock] = Field(default_factory=list)
    stop_reason: MessageEnd | None = None
    stop_sequence: str | None = None
    usage: Usage
    outrider: dict[str, Any] = Field(default_factory=dict)


def whole_message(model: str, reader: AnswerReader, out: RequestOutput, *, show_thoughts: bool) -> AnswerMessage:
    """The message of a finished answer."""
    parts = reader.push(out.text) + reader.flush()
    blocks: list[TextBlock | ThinkingBlock | ToolUseBlock] = []
    if parts.reasoning:
        blocks.append(ThinkingBlock(thinking=parts.reasoning if show_thoughts else ""))
    if parts.content and (parts.content.strip() or not parts.calls):
        blocks.append(TextBlock(text=parts.content))
    blocks += [_tool_use(call) for call in parts.calls]
    reason, sequence = _end(out.finish_reason, out.stop_reason, called=bool(parts.calls))
    stats = out.stats.as_dict()
    return AnswerMessage(
        model=model, content=blocks, stop_reason=reason, stop_sequence=sequence, usage=Usage.of(out), outrider=stats
    )


async def message_events(
    model: str, reader: AnswerReader, run: Run, *, prompt_tokens: int, show_thoughts: bool
) -> AsyncGenerator[str, None]:
    """The events of an answer as it is generated."""
    message = AnswerMessage(model=model, usage=Usage(input_tokens=prompt_tokens, output_tokens=0))
    yield event("message_start", message=message.model_dump())
    yield event("ping")
    blocks = BlockEvents(show_thoughts=show_thoughts)
    async for _, piece in run.pieces():
        parts = reader.push(piece.text)
        if piece.finish_reason is not None:
            parts += reader.flush()
        for each in blocks.of(parts):
            yield each
    for each in blocks.end():
        yield each
    (out,) = run.outputs
    reason, sequence = _end(out.finish_reason, out.stop_reason, called=reader.calls > 0)
    delta = {"stop_reason": reason, "stop_sequence": sequence}
    yield event("message_delta", delta=delta, usage=Usage.of(out).model_dump(), outrider=out.stats.as_dict())
    yield event("message_stop")


class BlockEvents:
    """Opens, fills and closes one content block after the other."""

    def __init__(self, *, show_thoughts: bool) -> None:
        self._show_thoughts = show_thoughts
        self._index, self._open = -1, ""
        self._space = ""  # held back: space alone is no block before a call

    def of(self, parts: Parts) -> Iterator[str]:
        """The events of the parts of one piece."""
        if parts.reasoning:
            yield from self._begin("thinking", ThinkingBlock(thinking=""))
            if self._show_thoughts:
                yield self._delta("thinking_delta", thinking=parts.reasoning)
        content = self._space + parts.content
        if self._open != "text" and not content.strip():
            self._space = content
        elif content:
            self._space = ""
            yield from self._begin("text", TextBlock(text=""))
            yield self._delta("text_delta", text=content)
        for call in parts.calls:
            self._space = ""
            block = _tool_use(call)
            yield from self._begin("", block.model_copy(update={"input": {}}))
            yield self._delta("input_json_delta", partial_json=json.dumps(block.input, ensure_ascii=False))
            yield from self.end()

    def end(self) -> Iterator[str]:
        """Closes the open block."""
        if self._open == "thinking":
            yield self._delta("signature_delta", signature="")
        if self._open:
            yield event("content_block_stop", index=self._index)
        self._open = ""

    def _begin(self, kind: str, block: BaseModel) -> Iterator[str]:
        if kind and self._open == kind:
            return
        yield from self.end()
        self._index, self._open = self._index + 1, kind or "tool_use"
        yield event("content_block_start", index=self._index, content_block=block.model_dump())

    def _delta(self, kind: str, **values: str) -> str:
        return event("content_block_delta", index=self._index, delta={"type": kind, **values})


def event(name: str, **values: Any) -> str:
    """One event, named as its type."""
    return f"event: {name}\ndata: {json.dumps({'type': name, **values}, ensure_ascii=False)}\n\n"


def _tool_use(call: FunctionCall) -> ToolUseBlock:
    return ToolUseBlock(name=call.name, input=json.loads(call.arguments))


def _end(reason: FinishReason, stopped: StopReason, *, called: bool) -> tuple[MessageEnd, str | None]:
    if reason == "length":
        return "max_tokens", None
    if called:
        return "tool_use", None
    return ("stop_sequence", stopped) if isinstance(stopped, str) else ("end_turn", None)
