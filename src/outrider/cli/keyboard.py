"""The keyboard in a session: lines to type with the usual keys, and Ctrl-C while an answer streams."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import WordCompleter
from prompt_toolkit.enums import DEFAULT_BUFFER
from prompt_toolkit.filters import has_focus
from prompt_toolkit.formatted_text import FormattedText
from prompt_toolkit.history import FileHistory, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.output import Output
from prompt_toolkit.output.vt100 import Vt100_Output
from prompt_toolkit.shortcuts import CompleteStyle

from outrider import system
from outrider.errors import UsageError

KEYS = """\
  Enter                send; pasted text of several lines is one message
  Alt-Enter            begin a new line; so does a backslash before Enter
  Ctrl-C               stop an answer, keep what came; at the prompt: clear it
  Ctrl-D               leave
  Up, Ctrl-R           earlier messages; search them
  Ctrl-X Ctrl-E        write in $EDITOR"""


def line_reader(commands: Iterable[str], history: Path | None) -> Callable[[], str]:
    """A function that reads one message, of one or several lines.

    It raises EOFError for Ctrl-D, and KeyboardInterrupt for Ctrl-C where nothing was typed.

    Args:
        commands: words that Tab completes at the beginning.
        history: file of the messages typed so far; None keeps them in memory.

    Raises:
        UsageError: the file cannot be written.
    """
    session: PromptSession[str] = PromptSession(
        FormattedText([("bold", "> ")]),
        multiline=True,
        prompt_continuation="  ",
        key_bindings=_bindings(),
        history=InMemoryHistory() if history is None else FileHistory(_private(history)),
        completer=WordCompleter(list(commands), sentence=True),
        complete_while_typing=False,
        complete_style=CompleteStyle.READLINE_LIKE,
        enable_open_in_editor=True,
        enable_suspend=True,
        output=_output(),
    )
    return session.prompt


def _bindings() -> KeyBindings:
    bindings = KeyBindings()
    typing = has_focus(DEFAULT_BUFFER)  # and not the search

    @bindings.add("enter", filter=typing)
    def _send(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if buffer.document.text_before_cursor.endswith("\\") and buffer.document.is_cursor_at_the_end:
            buffer.delete_before_cursor()
            buffer.newline(copy_margin=False)
        else:
            buffer.validate_and_handle()

    @bindings.add("escape", "enter", filter=typing)
    def _newline(event: KeyPressEvent) -> None:
        event.current_buffer.newline(copy_margin=False)

    @bindings.add("c-c", filter=typing)
    def _clear(event: KeyPressEvent) -> None:
        if event.current_buffer.text:
            event.current_buffer.reset()
        else:
            event.app.exit(exception=KeyboardInterrupt, style="class:aborting")

    return bindings


def _output() -> Output | None:
    """The terminal, without asking it for the cursor's position: some answer late or never. None for one that is never
    asked."""
    if sys.platform == "win32" or not sys.stdout.isatty():
        return None
    output = Vt100_Output.from_pty(sys.stdout, term=os.environ.get("TERM"))
    output.enable_cpr = False
    return output


def _private(path: Path) -> str:
    """The path of a file that only its owner can read, made if there is none."""
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600))
    except OSError as error:
        raise UsageError(f"--history {path} cannot be written ({error.strerror}): name another file") from error
    return str(path)


class Interrupts:
    """Counts Ctrl-C. The first stops the answer after the running pass, which keeps what was shown so far; the second,
    for a long prefill, raises KeyboardInterrupt."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> bool:
        return self.count > 0

    def handle(self, _number: int, _frame: FrameType | None) -> None:
        self.count += 1
        if self.count > 1:
            raise KeyboardInterrupt


@contextmanager
def interrupts() -> Iterator[Interrupts]:
    """While it is open, Ctrl-C sets a flag instead of raising."""
    state = Interrupts()
    before = signal.signal(signal.SIGINT, state.handle)
    try:
        yield state
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def unechoed() -> Iterator[None]:
    """While an answer streams, keys are not echoed into it; they reach the next prompt, a pasted text as one."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        yield
        return
    with system.unechoed():
        yield
