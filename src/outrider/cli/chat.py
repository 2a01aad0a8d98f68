"""A conversation in the terminal: with a base model one growing text, with a chat model its turns."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, ModuleType
from typing import TYPE_CHECKING

from outrider.cli.answer import Answer, print_figures, stream_answer
from outrider.console import error_console, show_error
from outrider.errors import OutriderError

if TYPE_CHECKING:
    from outrider import LLM, SamplingParams

# The brackets \001 and \002 tell line editing that what is between them takes no room.
_PROMPT = "\001\033[1m\002> \001\033[0m\002"
_HISTORY_LINES = 1000
_HELP = """\
What you type is added to the text so far, and the model goes on from there. An empty line lets a base model go on.
  /clear  forget the text so far      /stats  figures of the last answer
  /quit   leave (or Ctrl-D)           Ctrl-C  stops an answer; at the prompt it leaves"""


class Text:
    """A conversation with a base model, which knows no turns: all that was typed and answered is one text."""

    def __init__(self) -> None:
        self._text = ""

    @property
    def begun(self) -> bool:
        """Whether there is anything to forget."""
        return bool(self._text)

    def prompt(self, line: str) -> str:
        """What the model goes on from: the text with `line` on a line of its own; unchanged by an empty one."""
        if not line:
            return self._text
        separator = "" if not self._text or self._text.endswith("\n") else "\n"
        return self._text + separator + line

    def answered(self, line: str, answer: str) -> None:
        """The text grows by what was typed and what was answered, all of it or as far as it got."""
        self._text = self.prompt(line) + answer


class Turns:
    """A conversation with a model that has a chat template."""

    def __init__(self, llm: LLM) -> None:
        self._llm = llm
        self._messages: list[dict[str, str]] = []

    @property
    def begun(self) -> bool:
        """Whether there is anything to forget."""
        return bool(self._messages)

    def prompt(self, line: str) -> list[int]:
        """The ids of all turns, `line` being the last; none for an empty one."""
        return (
            self._llm.parts.prompts.conversation([*self._messages, {"role": "user", "content": line}])
            if line.strip()
            else []
        )

    def answered(self, line: str, answer: str) -> None:
        """Two more turns."""
        self._messages += [{"role": "user", "content": line}, {"role": "assistant", "content": answer}]


def converse(llm: LLM, params: SamplingParams, *, show_drafts: bool) -> None:
    """Reads lines and answers them until the end of input, Ctrl-C at the prompt, or /quit."""
    console = error_console()
    base = "What you type is continued as plain text; a base model, like the demo, is not a chat model. /help for help."
    console.print(base if llm.parts.chat is None else "/help for help.", style="dim")

    def begin() -> Text | Turns:
        return Text() if llm.parts.chat is None else Turns(llm)

    conversation, last = begin(), None
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
                    conversation, last = begin(), None
                case "/stats":
                    _print_stats(last)
                case command if command.startswith("/") and command[1:].isalpha():
                    console.print(f"{command} is not known; /help shows what is", style="dim")
                case _:
                    last = _answer(llm, conversation, line, params, show_drafts=show_drafts) or last


def _answer(
    llm: LLM, conversation: Text | Turns, line: str, params: SamplingParams, *, show_drafts: bool
) -> Answer | None:
    """One turn."""
    try:
        prompt = conversation.prompt(line)
        if not prompt:
            return None
        with interrupts() as stopped:
            answer = stream_answer(llm, prompt, params, show_drafts=show_drafts, stopped=stopped)
    except KeyboardInterrupt:
        error_console().print("\n(stopped before it began)", style="dim")
        return None
    except OutriderError as problem:
        show_error(problem)
        if conversation.begun:
            error_console().print("/clear begins a new text", style="dim")
        return None
    conversation.answered(line, answer.text)
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
