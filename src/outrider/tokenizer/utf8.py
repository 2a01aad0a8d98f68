"""Decoding of UTF-8 that may be invalid.

As in SentencePiece, each byte that is part of no character becomes one U+FFFD. (Python's "replace" gives one for all
bytes of an incomplete character.)
"""

from __future__ import annotations

import codecs

_EACH_BYTE = "outrider-each-byte"


def _replace_each(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return "\ufffd" * (error.end - error.start), error.end


codecs.register_error(_EACH_BYTE, _replace_each)


def text_of(data: bytes) -> str:
    """The characters of `data`, with U+FFFD for each byte that is part of none."""
    return data.decode("utf-8", _EACH_BYTE)


def without_surrogates(text: str) -> str:
    """The text with surrogate pairs joined, and lone surrogates, which UTF-8 cannot encode, as U+FFFD.

    Python represents undecodable bytes of a command line or a file name as lone surrogates.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


class IncrementalUtf8:
    """Decodes bytes in pieces; the pieces' texts together equal `text_of` of all bytes."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(_EACH_BYTE)

    def decode(self, data: bytes, *, final: bool = False) -> str:
        """The characters that are complete now; with `final`, U+FFFD for the bytes of an incomplete one."""
        return self._decoder.decode(data, final)
