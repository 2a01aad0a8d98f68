"""A session in the terminal: read a message, answer it, until the end of input."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from outrider.cli.answer import note
from outrider.cli.commands import COMMANDS, run_command
from outrider.cli.keyboard import line_reader
from outrider.cli.session import Session
from outrider.console import show_error
from outrider.errors import OutriderError


def keyboard(history: Path | None) -> Callable[[], str]:
    """Reads messages from the terminal; Tab completes commands. See `line_reader`."""
    return line_reader([f"/{command.name}{' ' if command.argument else ''}" for command in COMMANDS], history)


def converse(session: Session, read: Callable[[], str]) -> None:
    """Answers messages and runs commands until `read` raises EOFError, or a command does.

    Args:
        read: returns the next message; see `keyboard`.
    """
    what = "" if session.chat else "A base model continues what you type, and does not chat. "
    note(f"{what}/help for help.")
    while True:
        try:
            typed = read().removesuffix("\n")
            if not run_command(session, typed):
                session.say(typed)
            session.save()
        except EOFError:
            return
        except KeyboardInterrupt:
            note("Ctrl-D or /exit leaves")
        except OutriderError as problem:
            show_error(problem)
