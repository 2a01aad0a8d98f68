"""The errors a person can act on: every one says what was wrong, with which file or flag, and what to do."""

from __future__ import annotations

import errno
import os
import reprlib
from pathlib import Path


class OutriderError(Exception):
    """Base of every error that outrider raises on purpose."""


class UsageError(OutriderError):
    """A flag, an argument or a combination of them that cannot work."""


class CheckpointError(OutriderError):
    """A file that cannot be loaded: truncated, foreign, inconsistent, or of a kind that is not supported.

    Args:
        problem: what was expected and what was found, as a sentence without its full stop.
        path: the file or folder it was found in, put in front of the sentence.
        remedy: what the reader can do about it, as a sentence without its full stop.
    """

    def __init__(self, problem: str, *, path: str | Path | None = None, remedy: str | None = None) -> None:
        self.problem = problem
        self.path = path
        self.remedy = remedy
        sentence = problem if path is None else f"{path}: {problem}"
        super().__init__(_printable(f"{sentence}. {remedy}." if remedy else f"{sentence}."))


def memory_ran_out(error: BaseException) -> bool:
    """Whether that is what an error comes from. Then no file is at fault, and advice about one would mislead.

    Libraries report it as MemoryError, as an OSError, or in the system's words in an error of their own.
    """
    numbered = isinstance(error, OSError) and error.errno == errno.ENOMEM
    if isinstance(error, MemoryError) or numbered or os.strerror(errno.ENOMEM) in str(error):
        return True
    return error.__cause__ is not None and memory_ran_out(error.__cause__)


def _printable(text: str) -> str:
    """With line feeds and other control characters escaped: a file's own names must not rule the reader's terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def given(value: object) -> str:
    """A value of a wrong type as an error shows it: shortened, with its type."""
    return "None" if value is None else f"{reprlib.repr(value)} ({type(value).__name__})"
