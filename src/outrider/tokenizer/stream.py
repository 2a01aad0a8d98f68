"""Text from tokens, one by one."""

from __future__ import annotations

from collections.abc import Iterable

from outrider.tokenizer.tokenizer import Tokenizer
from outrider.tokenizer.utf8 import IncrementalUtf8


class StreamDecoder:
    """Turns tokens into text one by one, with constant work per token.

    A character whose bytes are spread over several tokens is returned with the last of them. The pushed and the flushed
    texts together equal `Tokenizer.decode` of the same ids.

    Args:
        skip_special: leave out the texts of control tokens.
        keep: control tokens whose text is not left out.
    """

    def __init__(self, tokenizer: Tokenizer, *, skip_special: bool = True, keep: frozenset[int] = frozenset()) -> None:
        self._tokenizer = tokenizer
        self._skip_special, self._keep = skip_special, keep
        self._utf8 = IncrementalUtf8()

    def push(self, token: int) -> str:
        """The characters that this token completes. Raises UsageError for an id outside the vocabulary."""
        skip = self._skip_special and token not in self._keep
        return self._utf8.decode(self._tokenizer.piece(token, skip_special=skip))

    def flush(self) -> str:
        """The rest, at the end: U+FFFD for each byte of an incomplete character."""
        return self._utf8.decode(b"", final=True)


def partial_match(text: str, marks: Iterable[str]) -> int:
    """Length of the longest end of `text` that is the beginning of one of `marks`, though not all of it.

    A stream holds these characters back: the next ones may complete the mark.
    """
    return max((_overlap(text, mark) for mark in marks), default=0)


def _overlap(text: str, mark: str) -> int:
    return next((n for n in range(min(len(text), len(mark) - 1), 0, -1) if text.endswith(mark[:n])), 0)
