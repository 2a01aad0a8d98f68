"""Answers as OpenAI's API has them: whole, and as the chunks of a stream."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from outrider.chat.calls import Call
from outrider.chat.markers import Markers
from outrider.chat.reader import AnswerReader, Parts
from outrider.engine.outputs import Piece, RequestOutput
from outrider.server.token_places import TokenPlaces
from outrider.tokenizer import StreamDecoder, Tokenizer


@dataclass(frozen=True)
class Form:
    """What the answers to one request look like.

    chat: the chat route's shapes, else the completion route's.
    markers: what the answers may hold besides content.
    """

    chat: bool
    model: str
    tokenizer: Tokenizer
    logprobs: bool
    markers: Markers = field(default_factory=Markers)
    id: str = field(default_factory=lambda: secrets.token_hex(12))
    created: int = field(default_factory=lambda: int(time.time()))

    def reader(self) -> AnswerReader:
        """Reads one of the answers."""
        return self.markers.reader()

    def whole(self, outputs: Sequence[RequestOutput]) -> dict[str, Any]:
        """The one object of a request that does not stream."""
        choices = []
        for index, out in enumerate(outputs):
            places = self.places()
            logprobs = places.next(out.logprobs or ()) if places else None
            body: dict[str, Any] = {"index": index, "finish_reason": out.finish_reason, "logprobs": logprobs}
            if self.chat:
                reader = self.reader()
                parts = reader.push(out.text) + reader.flush()
                body["message"] = _message(parts)
                body["finish_reason"] = _reason(out.finish_reason, reader)
            else:
                body["text"] = out.text
            choices.append(body)
        return {
            **self._head("chat.completion" if self.chat else "text_completion"),
            "choices": choices,
            "usage": usage(outputs),
            "outrider": [out.stats.as_dict() for out in outputs],
        }

    def chunk(self, body: dict[str, Any], marks: dict[str, Any]) -> dict[str, Any]:
        """A part of one answer, and what is known of its tokens."""
        return {**self._head(self._chunk_kind), "choices": [body], "outrider": marks}

    def last_chunk(self, outputs: Sequence[RequestOutput]) -> dict[str, Any]:
        """The chunk that has the usage and no choice."""
        return {**self._head(self._chunk_kind), "choices": [], "usage": usage(outputs)}

    @property
    def _chunk_kind(self) -> str:
        return "chat.completion.chunk" if self.chat else "text_completion"

    def _head(self, kind: str) -> dict[str, Any]:
        prefix = "chatcmpl" if self.chat else "cmpl"
        return {"id": f"{prefix}-{self.id}", "object": kind, "created": self.created, "model": self.model}

    def places(self) -> TokenPlaces | None:
        """Writes the log-probabilities of one of the answers, if they are asked for."""
        return TokenPlaces(self.tokenizer, chat=self.chat) if self.logprobs else None

    def text_of(self, token: int) -> str:
        """A token on its own, special ones too."""
        return self.tokenizer.piece(token, skip_special=False).decode("utf-8", "replace")


class Chunks:
    """The parts of one streamed answer.

    Args:
        index: which of the request's answers it is.
    """

    def __init__(self, form: Form, index: int) -> None:
        self._form, self._index = form, index
        self._decoder, self._reader = StreamDecoder(form.tokenizer), form.reader()
        self._places = form.places()
        self._begun = False

    def next(self, piece: Piece) -> dict[str, Any]:
        """The chunk of the next piece."""
        body: dict[str, Any] = {
            "index": self._index,
            "finish_reason": piece.finish_reason,
            "logprobs": self._places.next(piece.logprobs) if self._places else None,
        }
        if self._form.chat:
            calls_before = self._reader.calls
            parts = self._reader.push(piece.text)
            if piece.finish_reason is not None:
                parts += self._reader.flush()
                body["finish_reason"] = _reason(piece.finish_reason, self._reader)
            body["delta"] = {**({"role": "assistant"} if not self._begun else {}), **_delta(parts, calls_before)}
        else:
            body["text"] = piece.text
        self._begun = True
        return self._form.chunk(body, self._marks(piece))

    def _marks(self, piece: Piece) -> dict[str, Any]:
        """Of each token: its id, its text, who had drafted it, and what had been drafted in its place.

        Together the texts run ahead of the answer's where that holds back what may become a stop text.
        """
        return {
            "token_ids": list(piece.token_ids),
            "texts": [self._decoder.push(token) for token in piece.token_ids],
            "drafted": list(piece.drafted),
            "sources": list(piece.sources),
            "rejected": list(piece.rejected),
            "rejected_texts": [None if token is None else self._form.text_of(token) for token in piece.rejected],
            **({"stats": piece.stats.as_dict()} if piece.stats else {}),
        }


def _message(parts: Parts) -> dict[str, Any]:
    """A whole message. `reasoning_content` is DeepSeek's and vLLM's name for what OpenAI does not show."""
    message: dict[str, Any] = {"role": "assistant", "content": parts.content, "refusal": None}
    if parts.reasoning:
        message["reasoning_content"] = parts.reasoning
    if parts.calls:
        message["content"] = parts.content or None
        message["tool_calls"] = [_call(call) for call in parts.calls]
    return message


def _delta(parts: Parts, calls_before: int) -> dict[str, Any]:
    delta: dict[str, Any] = {}
    if parts.reasoning:
        delta["reasoning_content"] = parts.reasoning
    if parts.calls:
        delta["tool_calls"] = [{"index": i, **_call(call)} for i, call in enumerate(parts.calls, calls_before)]
    if parts.content or not delta:
        delta["content"] = parts.content
    return delta


def _call(call: Call) -> dict[str, Any]:
    function = {"name": call.name, "arguments": call.arguments}
    return {"id": f"call_{secrets.token_hex(12)}", "type": "function", "function": function}


def _reason(reason: str, reader: AnswerReader) -> str:
    return "tool_calls" if reason == "stop" and reader.calls else reason


def usage(outputs: Sequence[RequestOutput]) -> dict[str, Any]:
    """Tokens in and out; the prompt counts once, however many answers it got."""
    prompt = len(outputs[0].prompt_token_ids)
    completion = sum(len(out.token_ids) for out in outputs)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": outputs[0].stats.reused_tokens},
        "completion_tokens_details": {
            "reasoning_tokens": sum(out.stats.reasoning_tokens for out in outputs),
            "accepted_prediction_tokens": sum(out.stats.accepted for out in outputs),
            "rejected_prediction_tokens": sum(out.stats.drafted - out.stats.accepted for out in outputs),
        },
    }
