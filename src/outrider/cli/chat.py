"""A conversation in the terminal, with a model that continues text."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, ModuleType
from typing import TYPE_CHECKING

from outrider.cli.answer import Answer, print_figures, stream_answer
from outrider.errors import OutriderError
from outrider.terminal import error_console, show_error

if TYPE_CHECKING:
    from outrider import LLM, SamplingParams

# The brackets \001 and \002 tell line editing that what is between them takes no room.
_PROMPT = "\001\033[1m\002> \001\033[0m\002"
_HISTORY_LINES = 1000
_HELP = """\
What you type is added to the text so far, and the model goes on from there. An empty line lets it go on.
  /clear  forget the text so far      /stats  figures of the last answer
  /quit   leave (or Ctrl-D)           Ctrl-C  stops an answer; at the prompt it leaves"""


class Conversation:
    """The text so far. A base model has no turns: everything that was typed and answered is one text."""

    def __init__(self) -> None:
        self.text = ""

    def with_line(self, line: str) -> str:
        """The text with `line` on a line of its own; unchanged by an empty one."""
        # Models with a chat template will get their turns rendered by it here instead.
        if not line:
            return self.text
        separator = "" if not self.text or self.text.endswith("\n") else "\n"
        return self.text + separator + line


def converse(llm: LLM, params: SamplingParams, *, show_drafts: bool) -> None:
    """Reads lines and answers them until the end of input, Ctrl-C at the prompt, or /quit."""
    console = error_console()
    console.print(
        "What you type is continued as plain text; a base model, like the demo, is not a chat model. /help for help.",
        style="dim",
    )
    conversation, last = Conversation(), None
    with line_editing():
        while True:
            try:
                line = input(_PROMPT)
            except (EOFError, KeyboardInterrupt):
                console.print()
                return
            match line.strip():
                case "/quit" | "/exit":
                    return
                case "/help":
                    console.print(_HELP, style="dim")
                case "/clear":
                    conversation, last = Conversation(), None
                case "/stats":
                    _print_stats(last)
                case command if command.startswith("/") and command[1:].isalpha():
                    console.print(f"{command} is not known; /help shows what is", style="dim")
                case _:
                    last = _answer(llm, conversation, line, params, show_drafts=show_drafts) or last


def _answer(
    llm: LLM, conversation: Conversation, line: str, params: SamplingParams, *, show_drafts: bool
) -> Answer | None:
    """One turn. The text so far grows by what was typed and what was answered, all of it or as far as it got."""
    text = conversation.with_line(line)
    if not text:
        return None
    try:
        with interrupts() as stopped:
            answer = stream_answer(llm, text, params, show_drafts=show_drafts, stopped=stopped)
    except KeyboardInterrupt:
        error_console().print("\n(stopped before it began)", style="dim")
        return None
    except OutriderError as problem:
        show_error(problem)
        if conversation.text:
            error_console().print("/clear begins a new text", style="dim")
        return None
    conversation.text = text + answer.text
    if answer.stats is None:
        error_console().print("(stopped)", style="dim")
    return answer


def _print_stats(last: Answer | None) -> None:
    if last is None:
        error_console().print("nothing was answered yet", style="dim")
    elif last.stats is None:
        error_console().print(f"the last answer was stopped after {last.tokens} tokens", style="dim")
    else:
        print_figures(last)


class _Interrupts:
    """Counts Ctrl-C. The first asks the answer to stop after the pass in work, which keeps what was shown so far; the
    second, for a long prefill, does not wait."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> bool:
        return self.count > 0

    def handle(self, _number: int, _frame: FrameType | None) -> None:
        self.count += 1
        if self.count > 1:
            raise KeyboardInterrupt


@contextmanager
def interrupts() -> Iterator[_Interrupts]:
    """While it is open, Ctrl-C sets a flag instead of raising."""
    state = _Interrupts()
    before = signal.signal(signal.SIGINT, state.handle)
    try:
        yield state
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def line_editing() -> Iterator[None]:
    """Line editing and a history that outlives the program, where Python has readline."""
    try:
        import readline
    except ImportError:
        yield
        return
    path = history_path()
    _read_history(readline, path)
    try:
        yield
    finally:
        _write_history(readline, path)


def history_path() -> Path:
    """Where the lines typed so far are kept."""
    state = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(state).expanduser() / "outrider" / "history"


def _read_history(readline: ModuleType, path: Path) -> None:
    readline.set_history_length(_HISTORY_LINES)
    try:
        readline.read_history_file(path)
    except OSError:
        return  # none yet, or not ours to read: a conversation does not need it


def _write_history(readline: ModuleType, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        readline.write_history_file(path)
        path.chmod(0o600)
    except OSError as error:
        error_console().print(f"the lines you typed could not be kept: {error}", style="dim")
