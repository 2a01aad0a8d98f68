"""Which tokens of an answer are thoughts, calls and text."""

from __future__ import annotations

from typing import Literal

from outrider.chat.reader import CALL, CALL_END, CHANNEL, CHANNEL_END
from outrider.tokenizer import Tokenizer

Span = Literal["thought", "call", "text"]


class Spans:
    """Reads an answer token by token."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        marks: tuple[tuple[str, Span], ...] = ((CHANNEL, "thought"), (CALL, "call"))
        self._begins = {token: span for mark, span in marks for token in tokenizer.special_tokens([mark])}
        self._ends = tokenizer.special_tokens([CHANNEL_END, CALL_END])
        self._inside: Span = "text"

    def next(self, token: int) -> Span:
        """What the next token belongs to; marks are part of what they enclose."""
        if self._inside == "text":
            self._inside = self._begins.get(token, "text")
        found = self._inside
        if token in self._ends:
            self._inside = "text"
        return found
