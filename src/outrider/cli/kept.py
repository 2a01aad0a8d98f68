"""Conversations that `--session NAME` keeps, each in a file that only its user can read: a message a line, as JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

import filelock

from outrider.atomic_file import replacing
from outrider.cli.messages import Message, message_of
from outrider.errors import UsageError
from outrider.user_cache import user_state

_NAME = re.compile(r"\w[\w.-]{0,99}")


class KeptConversation:
    """The conversation of this name, for this process alone until it ends.

    Raises:
        UsageError: the name cannot be a file's, the file cannot be used, or another process has it.
    """

    def __init__(self, name: str) -> None:
        if not _NAME.fullmatch(name):
            raise UsageError(f"--session {name!r} is no name: use letters, digits, dots and dashes")
        folder = user_state("sessions")
        if folder is None:
            raise UsageError("--session keeps nothing for a user without a home folder: set XDG_STATE_HOME")
        self.name, self.path = name, folder / f"{name}.jsonl"
        self._lock = filelock.FileLock(folder / f"{name}.lock", mode=0o600)
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock.acquire(timeout=0)
        except filelock.Timeout:
            raise UsageError(
                f"--session {name} is open in another process: leave it there, or choose another"
            ) from None
        except OSError as error:
            problem = f"--session {name}: {folder} cannot be written to ({error.strerror})"
            raise UsageError(f"{problem}: check its permissions, or set XDG_STATE_HOME") from error

    def read(self) -> list[Message]:
        """What was said so far; nothing in a new conversation.

        Raises:
            UsageError: the file cannot be read, or a line is no message.
        """
        try:
            text = self.path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return []
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{self.path} cannot be read ({error}): mend it or remove it") from error
        lines = text.removesuffix("\n").split("\n") if text else []  # other line separators may be within a message
        return [self._message(line, number) for number, line in enumerate(lines)]

    def _message(self, line: str, number: int) -> Message:
        where = f"{self.path}, line {number + 1}"
        try:
            return message_of(json.loads(line), where, first=number == 0)
        except (ValueError, RecursionError) as error:
            raise UsageError(f"{where} is not JSON ({error}): mend it or remove it") from error

    def write(self, messages: Sequence[Message]) -> None:
        """Replaces what was said so far: by the whole of it or, if that fails, not at all.

        Raises:
            UsageError: the file cannot be written.
        """
        text = "".join(json.dumps(message, ensure_ascii=False) + "\n" for message in messages)
        try:
            with replacing(self.path, locked=True) as partial:
                partial.touch(mode=0o600)
                # A lone surrogate, typed as an invalid byte, has no UTF-8; escaped it is JSON.
                partial.write_text(text, encoding="utf-8", errors="backslashreplace")
        except OSError as error:
            raise UsageError(
                f"{self.path} cannot be written ({error.strerror}): free space there; the conversation is not kept"
            ) from error
