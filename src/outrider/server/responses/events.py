"""The events of a response, which grows as they are made.

See https://platform.openai.com/docs/api-reference/responses-streaming.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

from outrider.chat.calls import Call as FunctionCall
from outrider.chat.reader import AnswerReader, Parts
from outrider.engine.outputs import RequestOutput
from outrider.sampling.logprobs import TokenLogprobs
from outrider.server.errors import ApiError
from outrider.server.openai.logprobs import ChatTokenLogprob
from outrider.server.responses.items import opaque_thought
from outrider.server.responses.logprobs import TextLogprobs
from outrider.server.responses.shapes import (
    CustomCallItem,
    FunctionCallItem,
    IncompleteDetails,
    ItemStatus,
    MessageItem,
    OutputItem,
    OutputText,
    ReasoningItem,
    ResponseError,
    ResponseObject,
    ResponseUsage,
    Status,
    ThoughtText,
    as_json,
    item_id,
)
from outrider.server.responses.tools import Tools
from outrider.tokenizer import Tokenizer

Events = Iterator[dict[str, Any]]


class ResponseWriter:
    """Writes an answer into a response, and says what it wrote.

    Args:
        response: without output.
        summary: thoughts come as summaries, since the request asks for one.
        opaque: thoughts come as `encrypted_content` too.
    """

    def __init__(
        self,
        response: ResponseObject,
        reader: AnswerReader,
        tools: Tools,
        tokenizer: Tokenizer,
        *,
        summary: bool,
        opaque: bool,
    ) -> None:
        self.response = response
        self._reader, self._tools, self._tokenizer = reader, tools, tokenizer
        self._summary, self._opaque = summary, opaque
        self._number = 0
        self._open: MessageItem | ReasoningItem | None = None
        self._space = ""  # held back: space alone is no message before a call
        self._logprobs = TextLogprobs(tokenizer)

    def begin(self) -> Events:
        """The first events."""
        yield self._event("response.created", response=self._dumped())
        yield self._event("response.in_progress", response=self._dumped())

    def push(self, text: str, logprobs: Sequence[TokenLogprobs] | None) -> Events:
        """The events of the next part of the answer. The items do not depend on how the answer is cut into parts."""
        self._logprobs.note(logprobs or ())
        for parts in self._reader.push_in_order(text):
            yield from self._parts(parts)

    def end(self, out: RequestOutput) -> Events:
        """The events of the answer's end, but for the last one."""
        yield from self._parts(self._reader.flush())
        if (self._space and not self._reader.calls) or not self.response.output:
            yield from self._text(self._space)
        cut = out.finish_reason == "length"
        yield from self._close("incomplete" if cut else "completed")
        self._finish("incomplete" if cut else "completed")
        self.response.incomplete_details = IncompleteDetails() if cut else None
        self.response.usage = ResponseUsage.of(out)
        self.response.outrider = out.stats.as_dict()

    def fail(self, error: ApiError) -> Events:
        """The events of a failure, but for the last one."""
        yield from self._close("incomplete")
        self._finish("failed")
        code = "server_error" if error.status >= 500 else "invalid_prompt"
        self.response.error = ResponseError(code=code, message=str(error))
        yield self._event("error", code=code, message=str(error), param=error.param)

    def cancel(self) -> Events:
        """The events of a response that is cancelled, but for the last one."""
        yield from self._close("incomplete")
        self._finish("cancelled")

    def last(self) -> dict[str, Any]:
        """The last event. OpenAI has none for a cancelled response: it is incomplete."""
        kind = "incomplete" if self.response.status == "cancelled" else self.response.status
        return self._event(f"response.{kind}", response=self._dumped())

    # -- parts -------------------------------------------------------------------------------------------------------

    def _parts(self, parts: Parts) -> Events:
        if parts.reasoning:
            yield from self._thought(parts.reasoning)
        content = self._space + parts.content
        if isinstance(self._open, MessageItem) or content.strip():
            self._space = ""
            yield from self._text(content)
        else:
            self._space = content
        for call in parts.calls:
            self._logprobs.written(self._space)
            self._space = ""
            yield from self._call(call)

    def _thought(self, text: str) -> Events:
        item = self._open
        part = ThoughtText(type="summary_text" if self._summary else "reasoning_text")
        if not isinstance(item, ReasoningItem):
            yield from self._close("completed")
            item = self._open = ReasoningItem(id=self._new_id("rs"))
            yield self._added(item)
            item.summary, item.content = ([part], None) if self._summary else ([], [part])
            yield self._in_part("part.added", part=part.model_dump())
        (item.content or item.summary)[0].text += text
        yield self._in_part("text.delta", delta=text)

    def _text(self, text: str) -> Events:
        item = self._open
        if not isinstance(item, MessageItem):
            yield from self._close("completed")
            item = self._open = MessageItem(id=self._new_id("msg"))
            yield self._added(item)
            item.content = [OutputText()]
            yield self._in_part("part.added", part=item.content[0].model_dump())
        if text:
            logprobs = self._logprobs.written(text)
            item.content[0].text += text
            item.content[0].logprobs += logprobs
            yield self._in_part("text.delta", delta=text, logprobs=_dumped_all(logprobs))

    def _call(self, call: FunctionCall) -> Events:
        yield from self._close("completed")
        offered = self._tools.offered.get(call.name)
        name, namespace = (offered.name, offered.namespace) if offered else (call.name, None)
        item: FunctionCallItem | CustomCallItem
        if offered and offered.custom:
            item = CustomCallItem(id=self._new_id("ctc"), name=name, namespace=namespace)
            kind, field, value = "custom_tool_call_input", "input", offered.input_of(call)
        else:
            item = FunctionCallItem(id=self._new_id("fc"), name=name, namespace=namespace)
            kind, field, value = "function_call_arguments", "arguments", call.arguments
        yield self._added(item)
        setattr(item, field, value)
        where = {"item_id": item.id, "output_index": len(self.response.output) - 1}
        yield self._event(f"response.{kind}.delta", **where, delta=value)
        yield self._event(f"response.{kind}.done", **where, **{field: value})
        yield self._done(item, "completed")

    def _close(self, status: ItemStatus) -> Events:
        """Ends the open item."""
        item = self._open
        if item is None:
            return
        part: OutputText | ThoughtText
        if isinstance(item, MessageItem):
            (part,) = item.content
            more: dict[str, Any] = {"logprobs": _dumped_all(part.logprobs)}
        else:
            (part,) = item.content or item.summary
            more = {}
            item.encrypted_content = opaque_thought(part.text) if self._opaque else None
        yield self._in_part("text.done", text=part.text, **more)
        yield self._in_part("part.done", part=part.model_dump())
        self._open = None
        yield self._done(item, status)

    # -- events ------------------------------------------------------------------------------------------------------

    def _added(self, item: OutputItem) -> dict[str, Any]:
        index = len(self.response.output)
        self.response.output.append(item)
        return self._event("response.output_item.added", output_index=index, item=item.model_dump())

    def _done(self, item: OutputItem, status: ItemStatus) -> dict[str, Any]:
        item.status = status
        index = len(self.response.output) - 1
        return self._event("response.output_item.done", output_index=index, item=item.model_dump())

    def _in_part(self, what: str, **values: Any) -> dict[str, Any]:
        """An event of the only part of the open item, the last one. `what`: text.delta, text.done, part.added or
        part.done."""
        assert self._open is not None
        kind, index = "output_text", "content_index"
        if isinstance(self._open, ReasoningItem):
            kind, index = ("reasoning_summary_text", "summary_index") if self._summary else ("reasoning_text", index)
        if what.startswith("part"):
            kind = "reasoning_summary_part" if index == "summary_index" else "content_part"
        where = {"item_id": self._open.id, "output_index": len(self.response.output) - 1, index: 0}
        return self._event(f"response.{kind}.{what.partition('.')[2]}", **where, **values)

    def _event(self, kind: str, **values: Any) -> dict[str, Any]:
        self._number += 1
        return {"type": kind, "sequence_number": self._number - 1, **values}

    # -- the response ------------------------------------------------------------------------------------------------

    def _dumped(self) -> dict[str, Any]:
        return self.response.model_dump()

    def _finish(self, status: Status) -> None:
        self.response.status, self.response.completed_at = status, int(time.time())

    def _new_id(self, kind: str) -> str:
        return item_id(kind, self.response.id, len(self.response.output))


def _dumped_all(logprobs: Sequence[ChatTokenLogprob]) -> list[dict[str, Any]]:
    return [each.model_dump() for each in logprobs]


def as_text(event: dict[str, Any]) -> str:
    """An event as it is sent, named as its type."""
    return f"event: {event['type']}\ndata: {as_json(event)}\n\n"
