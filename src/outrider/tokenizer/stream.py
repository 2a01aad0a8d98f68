"""Text from tokens as they come."""

from __future__ import annotations

from outrider.tokenizer.tokenizer import Tokenizer
from outrider.tokenizer.utf8 import IncrementalUtf8


class StreamDecoder:
    """Turns tokens into text one by one; constant work a token.

    A character whose bytes are spread over several tokens comes out whole, with the last of them. All that was pushed,
    then flushed, is exactly `Tokenizer.decode` of the same ids.

    Args:
        keep: control tokens that have a text although the others are skipped.
    """

    def __init__(self, tokenizer: Tokenizer, *, skip_special: bool = True, keep: frozenset[int] = frozenset()) -> None:
        self._tokenizer = tokenizer
        self._skip_special, self._keep = skip_special, keep
        self._utf8 = IncrementalUtf8()

    def push(self, token: int) -> str:
        """The text that became certain with this token. Raises UsageError for an id outside the vocabulary."""
        skip = self._skip_special and token not in self._keep
        return self._utf8.decode(self._tokenizer.piece(token, skip_special=skip))

    def flush(self) -> str:
        """What is left at the end: U+FFFD for each byte of a character that was never finished."""
        return self._utf8.decode(b"", final=True)
