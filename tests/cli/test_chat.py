"""The conversation, typed at a pseudo-terminal."""

from __future__ import annotations

import os
import pty
import select
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

TESTS = Path(__file__).parent.parent
PROGRAM = """
import sys; sys.path.insert(0, {tests!r})
import outrider, fake_llm
outrider.LLM = fake_llm.FakeLLM
fake_llm.FakeLLM.answer, fake_llm.FakeLLM.pause = {answer!r}, {pause!r}
sys.argv = ["outrider", "run", "demo", *{arguments!r}]
from outrider.cli import main
main()
"""


class Terminal:
    """A program at a terminal of its own."""

    def __init__(self, process: int, descriptor: int) -> None:
        self.process, self.descriptor = process, descriptor
        self.screen = ""

    def type(self, keys: str) -> None:
        os.write(self.descriptor, keys.encode())

    def expect(self, text: str, seconds: float = 20) -> str:
        """Waits until `text` is on the screen; what came before it, which is forgotten together with it."""
        deadline = time.monotonic() + seconds
        while text not in self.screen:
            if not select.select([self.descriptor], [], [], max(deadline - time.monotonic(), 0))[0]:
                pytest.fail(f"{text!r} did not come; the screen shows {self.screen!r}")
            try:
                self.screen += os.read(self.descriptor, 4096).decode(errors="replace")
            except OSError:  # how Linux says that the program has ended
                pytest.fail(f"the program ended before {text!r}; the screen shows {self.screen!r}")
        before, self.screen = self.screen.split(text, 1)
        return before

    def exit_code(self, *, again: str = "") -> int:
        """Waits for the end, pressing `again` now and then: Python loses a Ctrl-C that comes between showing the prompt
        and waiting for a key."""
        for attempt in range(400):
            if again and attempt % 20 == 19:
                self.type(again)
            ended, status = os.waitpid(self.process, os.WNOHANG)
            if ended:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.05)
        os.kill(self.process, signal.SIGKILL)
        os.waitpid(self.process, 0)
        return pytest.fail(f"the program goes on; the screen shows {self.screen!r}")


@contextmanager
def conversation(state: Path, *arguments: str, answer: str = " is big.", pause: float = 0.0) -> Iterator[Terminal]:
    program = PROGRAM.format(tests=str(TESTS), answer=answer, pause=pause, arguments=arguments)
    process, descriptor = pty.fork()
    if process == 0:
        environment = os.environ | {"XDG_STATE_HOME": str(state), "TERM": "xterm", "COLUMNS": "200"}
        environment.pop("NO_COLOR", None)
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell's background jobs are started with it ignored
        os.execve(sys.executable, [sys.executable, "-c", program], environment)
    terminal = Terminal(process, descriptor)
    try:
        terminal.expect("not a chat model")
        terminal.expect("> ")
        yield terminal
    finally:
        os.close(descriptor)  # hangs up, which ends what still runs


def test_lines_are_answered_and_the_text_grows(tmp_path):
    with conversation(tmp_path) as terminal:
        terminal.type("Paris\n")
        terminal.expect(" is big.")
        terminal.expect("> ")
        terminal.type("/stats\n")
        assert "prefill" in terminal.expect("tokens per pass")
        terminal.expect("> ")
        terminal.type("/help\n")
        terminal.expect("/clear")
        terminal.expect("> ")
        terminal.type("/what\n")
        terminal.expect("/what is not known")
        terminal.expect("> ")
        terminal.type("/quit\n")
        assert terminal.exit_code() == 0
    history = (tmp_path / "outrider" / "history").read_text()
    assert "Paris" in history


def test_ctrl_c_stops_the_answer_and_not_the_program(tmp_path):
    with conversation(
        tmp_path,
        answer="word " * 2000,
        pause=0.02,
    ) as terminal:
        terminal.type("begin\n")
        terminal.expect("word word")
        terminal.type("\x03")
        terminal.expect("(stopped)")
        terminal.expect("> ")
        terminal.type("/stats\n")
        terminal.expect("was stopped after")
        terminal.expect("> ")
        terminal.type("again\n")
        terminal.expect("word word")
        terminal.type("\x03")
        terminal.expect("(stopped)")
        terminal.expect("> ")
        terminal.type("\x03")
        assert terminal.exit_code(again="\x03") == 0


def test_end_of_input_leaves(tmp_path):
    with conversation(tmp_path) as terminal:
        terminal.type("\x04")
        assert terminal.exit_code() == 0


def test_drafted_tokens_are_coloured(tmp_path):
    with conversation(tmp_path, "--show-drafts", answer="abcdef") as terminal:
        terminal.type("x\n")
        terminal.expect("\033[32mab\033[0m\033[33mc\033[0m\033[32mde\033[0m\033[33mf\033[0m")
        terminal.expect("> ")
        terminal.type("/stats\n")
        terminal.expect("green: drafted")


def test_an_empty_first_line_asks_nothing(tmp_path):
    with conversation(tmp_path) as terminal:
        terminal.type("\n")
        terminal.expect("> ")
        terminal.type("/stats\n")
        terminal.expect("nothing was answered yet")
