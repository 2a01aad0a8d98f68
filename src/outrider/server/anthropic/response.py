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
    """The message of a finished answer: what its events put together."""
    writer = BlockWriter(reader, show_thoughts=show_thoughts)
    for _ in (*writer.push(out.text), *writer.end()):
        pass
    reason, sequence = _end(out.finish_reason, out.stop_reason, called=reader.calls > 0)
    return AnswerMessage(
        model=model,
        content=writer.blocks,
        stop_reason=reason,
        stop_sequence=sequence,
        usage=Usage.of(out),
        outrider=out.stats.as_dict(),
    )


async def message_events(
    model: str, reader: AnswerReader, run: Run, *, prompt_tokens: int, show_thoughts: bool
) -> AsyncGenerator[str, None]:
    """The events of an answer as it is generated."""
    message = AnswerMessage(model=model, usage=Usage(input_tokens=prompt_tokens, output_tokens=0))
    yield event("message_start", message=message.model_dump())
    yield event("ping")
    writer = BlockWriter(reader, show_thoughts=show_thoughts)
    async for _, piece in run.pieces():
        for each in writer.push(piece.text):
            yield each
    for each in writer.end():
        yield each
    (out,) = run.outputs
    reason, sequence = _end(out.finish_reason, out.stop_reason, called=reader.calls > 0)
    delta = {"stop_reason": reason, "stop_sequence": sequence}
    yield event("message_delta", delta=delta, usage=Usage.of(out).model_dump(), outrider=out.stats.as_dict())
    yield event("message_stop")


class BlockWriter:
    """Writes an answer into content blocks, one after the other, and yields the events that say so. The blocks do not
    depend on how the answer is cut into pieces.

    Args:
        show_thoughts: whether thoughts' blocks have their text.
    """

    def __init__(self, reader: AnswerReader, *, show_thoughts: bool) -> None:
        self._reader, self._show_thoughts = reader, show_thoughts
        self._open: TextBlock | ThinkingBlock | ToolUseBlock | None = None
        self._space = ""  # held back: space alone is no block before a call
        self.blocks: list[TextBlock | ThinkingBlock | ToolUseBlock] = []
        """Written so far."""

    def push(self, text: str) -> Iterator[str]:
        """Writes the next piece of the answer."""
        for parts in self._reader.push_in_order(text):
            yield from self._write(parts)

    def end(self) -> Iterator[str]:
        """Writes what is left."""
        yield from self._write(self._reader.flush())
        if self._space and not self._reader.calls:
            yield from self._text(self._space)
        yield from self._close()

    def _write(self, parts: Parts) -> Iterator[str]:
        if parts.reasoning:
            yield from self._thought(parts.reasoning)
        content = self._space + parts.content
        if isinstance(self._open, TextBlock) or content.strip():
            self._space = ""
            yield from self._text(content)
        else:
            self._space = content
        for call in parts.calls:
            self._space = ""
            yield from self._call(call)

    def _thought(self, text: str) -> Iterator[str]:
        block = self._open
        if not isinstance(block, ThinkingBlock):
            block = ThinkingBlock(thinking="")
            yield from self._begin(block, block)
        if self._show_thoughts:
            block.thinking += text
            yield self._delta("thinking_delta", thinking=text)

    def _text(self, text: str) -> Iterator[str]:
        block = self._open
        if not isinstance(block, TextBlock):
            block = TextBlock(text="")
            yield from self._begin(block, block)
        if text:
            block.text += text
            yield self._delta("text_delta", text=text)

    def _call(self, call: FunctionCall) -> Iterator[str]:
        block = ToolUseBlock(name=call.name, input=json.loads(call.arguments))
        yield from self._begin(block, block.model_copy(update={"input": {}}))
        yield self._delta("input_json_delta", partial_json=json.dumps(block.input, ensure_ascii=False))
        yield from self._close()

    def _begin(self, block: TextBlock | ThinkingBlock | ToolUseBlock, shown: BaseModel) -> Iterator[str]:
        """Opens a block, which is shown without what is still to come."""
        yield from self._close()
        self._open = block
        self.blocks.append(block)
        yield event("content_block_start", index=len(self.blocks) - 1, content_block=shown.model_dump())

    def _close(self) -> Iterator[str]:
        if isinstance(self._open, ThinkingBlock):
            yield self._delta("signature_delta", signature="")
        if self._open is not None:
            yield event("content_block_stop", index=len(self.blocks) - 1)
        self._open = None

    def _delta(self, kind: str, **values: str) -> str:
        return event("content_block_delta", index=len(self.blocks) - 1, delta={"type": kind, **values})


def event(name: str, **values: Any) -> str:
    """One event, named as its type."""
    return f"event: {name}\ndata: {json.dumps({'type': name, **values}, ensure_ascii=False)}\n\n"


def _end(reason: FinishReason, stopped: StopReason, *, called: bool) -> tuple[MessageEnd, str | None]:
    if reason == "length":
        return "max_tokens", None
    if called:
        return "tool_use", None
    return ("stop_sequence", stopped) if isinstance(stopped, str) else ("end_turn", None)
