"""UTF-8 that may be broken.

As in SentencePiece, every byte that belongs to no character becomes one U+FFFD. (Python's own "replace" gives one for
the whole beginning of an unfinished character.)
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
    """The text with surrogate pairs joined and halves of pairs, which UTF-8 cannot write, as U+FFFD.

    Undecodable bytes of a command line or a file name reach Python as such halves.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


class IncrementalUtf8:
    """Decodes bytes that come in parts; all parts together give what `text_of` gives for the whole."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(_EACH_BYTE)

    def decode(self, data: bytes, *, final: bool = False) -> str:
        """The characters that are complete now. `final` gives up on one that is not."""
        return self._decoder.decode(data, final)
