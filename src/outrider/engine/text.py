"""Detokenizes one answer incrementally: whole characters, and no text that may still become a stop text."""

from __future__ import annotations

from outrider.tokenizer import StreamDecoder, Tokenizer
from outrider.tokenizer.stream import partial_match


class TextStream:
    """The text of one answer, token by token.

    Args:
        stop: texts that end the answer.
        keep_special: control tokens whose text is part of the answer.
    """

    def __init__(self, tokenizer: Tokenizer, stop: tuple[str, ...], keep_special: tuple[str, ...] = ()) -> None:
        self._decoder = StreamDecoder(tokenizer, keep=tokenizer.special_tokens(keep_special))
        self._stop = stop
        self._held = ""  # text that may be the beginning of a stop text
        self.stopped: str | None = None
        """The stop text that ended the answer."""

    def push(self, token: int, *, watch: bool = True) -> str:
        """Text that is now final. Sets `stopped` when a stop text is complete; what follows it is dropped.

        Without `watch` no stop text has part of this token's text.
        """
        text = self._decoder.push(token)
        if watch:
            return self._release(text)
        shown, self._held = self._held + text, ""
        return shown

    def flush(self) -> str:
        """The rest, at the end of the answer."""
        return self._release(self._decoder.flush()) + (self._held if self.stopped is None else "")

    def _release(self, text: str) -> str:
        if self.stopped is not None:
            return ""
        self._held += text
        found = [(at, stop) for stop in self._stop if (at := self._held.find(stop)) >= 0]
        if found:
            at, self.stopped = min(found)
            self._held = self._held[:at]
            return self._held
        keep = partial_match(self._held, self._stop)
        shown, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return shown
