"""Text from tokens as they come."""

from __future__ import annotations

import codecs

from outrider.tokenizer.tokenizer import Tokenizer


class StreamDecoder:
    """Turns tokens into text one by one; constant work a token.

    A character whose bytes are spread over several tokens comes out whole, with the last of them. All that was pushed,
    then flushed, is exactly `Tokenizer.decode` of the same ids.
    """

    def __init__(self, tokenizer: Tokenizer, *, skip_special: bool = True) -> None:
        self._tokenizer = tokenizer
        self._skip_special = skip_special
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token: int) -> str:
        """The text that became certain with this token."""
        return self._decoder.decode(self._tokenizer.piece(token, skip_special=self._skip_special))

    def flush(self) -> str:
        """What is left at the end: U+FFFD for a character that was never finished."""
        return self._decoder.decode(b"", final=True)
