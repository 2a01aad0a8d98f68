"""Streamed text as a terminal gets it: harmless characters, drafted tokens in colour, lines broken between words."""

from __future__ import annotations

import re
import shutil
from collections import deque
from collections.abc import Callable
from itertools import groupby
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from outrider.engine.outputs import Piece
    from outrider.tokenizer import Tokenizer

_ACCEPTED, _CORRECTED, _DIM, _PLAIN = "\033[32m", "\033[33m", "\033[2m", "\033[0m"
_STYLE = re.compile(r"\033\[\d*m")
_TAB = 8
# Scripts written without spaces break at any character.
_UNSPACED = "\u2e80-\u9fff\uf900-\ufaff\uff00-\uff60"
_PART = re.compile(rf"[\n\t ]|[{_UNSPACED}]|[^\n\t {_UNSPACED}]+")


def harmless(text: str) -> str:
    """Text as a terminal may get it: a model's output must not move the cursor or retitle the window."""
    return "".join(c if c.isprintable() or c in "\n\t" or ord(c) > 0x9F else f"\\x{ord(c):02x}" for c in text)


class DraftColours:
    """Which characters of streamed text come from accepted drafts, and which replace a rejected one.

    Pieces hold the text of several tokens, and an end that may yet become a stop text is held back; so the characters
    of every token queue up here until the text that has them is shown.

    Args:
        keep_special: as in SamplingParams.
    """

    def __init__(self, tokenizer: Tokenizer, keep_special: tuple[str, ...] = ()) -> None:
        from outrider.tokenizer import StreamDecoder

        keep = tokenizer.special_tokens(keep_special) if keep_special else frozenset()
        self._decoder = StreamDecoder(tokenizer, keep=keep)
        self._queue: deque[tuple[str, str]] = deque()

    def push(self, piece: Piece) -> None:
        """The tokens of the next piece."""
        for token, drafted, rejected in zip(piece.token_ids, piece.drafted, piece.rejected, strict=True):
            colour = _ACCEPTED if drafted else _CORRECTED if rejected is not None else ""
            self._queue.extend((character, colour) for character in self._decoder.push(token))

    def paint(self, text: str) -> str:
        """The next text to show, with terminal colours. What is not shown, as a thought's marks, is skipped."""
        coloured = [(self._colour_of(character), character) for character in text]
        runs = ((colour, "".join(c for _, c in run)) for colour, run in groupby(coloured, key=lambda pair: pair[0]))
        return "".join(f"{colour}{harmless(run)}{_PLAIN}" if colour else harmless(run) for colour, run in runs)

    def _colour_of(self, character: str) -> str:
        while self._queue:
            queued, colour = self._queue.popleft()
            if queued == character:
                return colour
        return ""


class WordWrap:
    """Breaks streamed text between words, where the terminal would break inside one.

    The last word is held back until its end is known. Style sequences take no room.

    Args:
        width: columns of the terminal, read for every word: a window may be resized while text streams.
    """

    def __init__(self, width: Callable[[], int] = lambda: shutil.get_terminal_size().columns) -> None:
        self._width = width
        self._column = 0
        self._continued = False  # whether the beginning of the held word was placed already
        self._gap = self._word = ""  # held back: the blanks before the word, and the word so far

    def push(self, text: str) -> str:
        """What may be printed now."""
        return "".join(map(self._push, _PART.findall(text)))

    def flush(self) -> str:
        """The rest, at the end of the text."""
        return self._place()

    def _push(self, part: str) -> str:
        if part in " \t":
            placed = self._place()
            self._gap += part
            return placed
        if part == "\n":
            placed = self._place()
            self._column, self._gap = 0, ""
            return placed + "\n"
        if re.match(f"[{_UNSPACED}]", part):
            placed = self._place()
            self._word = part
            return placed + self._place()
        self._word += part
        return self._place(ended=False) if len(self._word) > self._width() else ""

    def _place(self, *, ended: bool = True) -> str:
        """The held word, on a line of its own if it does not fit into this one. One that fits into none is placed in
        parts."""
        from rich.cells import cell_len

        word, self._word = self._word, ""
        width, columns = cell_len(_STYLE.sub("", word)), max(self._width(), 1)
        if width == 0:
            self._continued = self._continued and not ended
            return word
        continued, self._continued = self._continued, not ended
        if self._column and self._after_gap() + width > columns and not continued:
            self._column, self._gap = width % columns, ""
            return "\n" + word
        end = self._after_gap() + width
        gap, self._gap = self._gap, ""
        self._column = end if end <= columns else end % columns
        return gap + word

    def _after_gap(self) -> int:
        column = self._column
        for blank in self._gap:
            column += _TAB - column % _TAB if blank == "\t" else 1
        return column


class AnswerText:
    """An answer's text on a terminal: thoughts dim, then what the model says."""

    def __init__(self, colours: DraftColours | None) -> None:
        self._colours = colours
        self._wrap = WordWrap()
        self._thinking = False

    def render(self, reasoning: str, content: str) -> str:
        """The next parts of the answer; what may be printed of them now."""
        text = ""
        if reasoning:
            text += ("" if self._thinking else _DIM) + self._painted(reasoning, after=_DIM)
            self._thinking = True
        if content:
            text += (f"{_PLAIN}\n\n" if self._thinking else "") + self._painted(content)
            self._thinking = False
        return self._wrap.push(text)

    def flush(self) -> str:
        """The rest, at the end of the answer."""
        return self._wrap.flush() + (_PLAIN if self._thinking else "")

    def _painted(self, text: str, after: str = "") -> str:
        if self._colours is None:
            return harmless(text)
        return self._colours.paint(text).replace(_PLAIN, _PLAIN + after)
