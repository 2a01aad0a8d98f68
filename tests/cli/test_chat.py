"""A session, typed at a pseudo-terminal."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import stat
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

TESTS = Path(__file__).parent.parent
PROMPT = "\033[0;1m>"
PROGRAM = """
import sys; sys.path.insert(0, {tests!r})
import outrider, fake_llm
outrider.LLM = fake_llm.FakeLLM
fake_llm.FakeLLM.answer, fake_llm.FakeLLM.pause, fake_llm.FakeLLM.chat = {answer!r}, {pause!r}, {chat!r}
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

    def ask(self, keys: str, answer: str) -> str:
        """Types `keys` at the prompt and waits for `answer` and the next prompt; what came between."""
        self.type(keys)
        found = self.expect(answer)
        self.expect(PROMPT)
        return found

    def exit_code(self) -> int:
        """Waits for the end."""
        for _ in range(400):
            ended, status = os.waitpid(self.process, os.WNOHANG)
            if ended:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.05)
        os.kill(self.process, signal.SIGKILL)
        os.waitpid(self.process, 0)
        return pytest.fail(f"the program goes on; the screen shows {self.screen!r}")


@contextmanager
def session(
    *arguments: str, answer: str = " is big.", pause: float = 0.0, chat: bool | None = None, columns: int = 80
) -> Iterator[Terminal]:
    program = PROGRAM.format(tests=str(TESTS), answer=answer, pause=pause, chat=chat, arguments=arguments)
    process, descriptor = pty.fork()
    if process == 0:
        environment = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "COLUMNS", "LINES")}
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell's background jobs are started with it ignored
        os.execve(sys.executable, [sys.executable, "-c", program], environment | {"TERM": "xterm"})
    termios.tcsetwinsize(descriptor, (24, columns))
    terminal = Terminal(process, descriptor)
    try:
        terminal.expect("help.")
        terminal.expect(PROMPT)
        yield terminal
    finally:
        os.close(descriptor)  # hangs up, which ends what still runs


def pasted(text: str) -> str:
    """Keys as a terminal sends what is pasted."""
    return f"\033[200~{text}\033[201~"


def test_messages_are_answered_and_the_text_grows():
    with session() as terminal:
        terminal.ask("Paris\r", " is big.")
        assert "prefill" in terminal.ask("/stats\r", "tokens per pass")
        terminal.ask("/help\r", "/clear")
        terminal.ask("/claer\r", "did you mean /clear?")
        terminal.type("/quit\r")
        assert terminal.exit_code() == 0


@pytest.mark.parametrize(
    "keys", [pasted("one\rtwo\rthree"), "one\033\rtwo\033\rthree", "one\\\rtwo\\\rthree", pasted("one\r\ntwo\nthree\n")]
)
def test_several_lines_are_one_message(tmp_path, keys):
    file = tmp_path / "said.json"
    with session() as terminal:
        terminal.ask(f"{keys}\r", " is big.")
        terminal.ask(f"/save {file}\r", "saved 2 messages")
    assert json.loads(file.read_text())["messages"][0] == {"role": "user", "content": "one\ntwo\nthree"}


def test_ctrl_c_stops_the_answer_and_keeps_it(tmp_path):
    file = tmp_path / "said.json"
    with session(answer="word " * 2000, pause=0.02) as terminal:
        for _ in range(2):
            terminal.type("begin\r")
            terminal.expect("word word")
            terminal.ask("\x03", "(stopped)")
        terminal.ask("/stats\r", "was stopped after")
        terminal.ask(f"/save {file}\r", "saved 4 messages")
        said = json.loads(file.read_text())["messages"]
    assert said[1]["content"].startswith("word word")
    assert len(said[1]["content"]) < 9000


def test_ctrl_c_clears_what_was_typed_and_then_says_how_to_leave(tmp_path):
    file = tmp_path / "said.json"
    with session() as terminal:
        terminal.type("half a mess")
        terminal.expect("mess")
        terminal.type("\x03")
        terminal.ask("Paris\r", " is big.")
        terminal.ask("\x03", "Ctrl-D or /exit leaves")
        terminal.ask(f"/save {file}\r", "saved 2 messages")
        terminal.type("\x04")
        assert terminal.exit_code() == 0
    assert json.loads(file.read_text())["messages"][0]["content"] == "Paris"


def test_keys_typed_while_an_answer_streams_wait_for_the_prompt(tmp_path):
    file = tmp_path / "said.json"
    with session(answer="word " * 20, pause=0.05) as terminal:
        terminal.type("begin\r")
        terminal.expect("word word")
        terminal.type(pasted("next\rone") + "\r")
        assert "next" not in terminal.expect("stopped at")
        terminal.expect("stopped at")
        terminal.ask(f"/save {file}\r", "saved 4 messages")
    assert json.loads(file.read_text())["messages"][2]["content"] == "next\none"


@pytest.mark.parametrize("columns", [20, 41])
def test_words_stay_whole(columns):
    words = "the quick brown fox jumps over the lazy dog again and again "
    with session("--max-tokens", "400", answer=words * 4, columns=columns) as terminal:
        terminal.type("begin\r")
        terminal.expect("\033[?2004h")  # the last mark before the answer
        shown = terminal.expect("stopped at").rpartition("\r\n")[0]
    lines = re.sub(r"\033\[\??\d*\w", "", shown).split("\r\n")
    assert " ".join(line.strip() for line in lines if line.strip()) == (words * 4).strip()
    assert max(map(len, lines)) <= columns


def test_a_chat_is_limited_by_the_context_alone(tmp_path):
    file = tmp_path / "said.json"
    with session("--system", "be nice", answer="word " * 100, chat=True) as terminal:
        terminal.ask("begin\r", "stopped at the end of the context, 32768 tokens")
        terminal.ask(f"/save {file}\r", "saved 3 messages")
    system, _, answer = json.loads(file.read_text())["messages"]
    assert system == {"role": "system", "content": "be nice"}
    assert answer["content"] == "word " * 100


def test_end_of_input_leaves():
    with session() as terminal:
        terminal.type("\x04")
        assert terminal.exit_code() == 0


def test_what_is_typed_is_kept_in_a_file_only_if_one_is_named(tmp_path):
    file = tmp_path / "typed"
    with session("--history", str(file)) as terminal:
        terminal.ask("Paris\r", " is big.")
        terminal.type("\x04")
        assert terminal.exit_code() == 0
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    with session("--history", str(file)) as terminal:
        terminal.ask("\033[A\r", "Paris")  # the key Up
    assert "Paris" in file.read_text()


def test_a_named_session_goes_on_after_a_restart(tmp_path, monkeypatch):
    for variable in ("XDG_STATE_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(variable, str(tmp_path))
    kept, saved = tmp_path / "outrider" / "sessions" / "trip.jsonl", tmp_path / "said.json"
    with session("--session", "trip") as terminal:
        terminal.ask("Paris\r", " is big.")
        terminal.ask("/retry\r", " is big.")
        terminal.type("\x04")
        assert terminal.exit_code() == 0
    with session("--session", "trip") as terminal:
        terminal.ask("Rome\r", " is big.")
        terminal.ask(f"/save {saved}\r", "saved 4 messages")
        assert [json.loads(line) for line in kept.read_text().splitlines()] == json.loads(saved.read_text())["messages"]
        terminal.ask("/clear\r", "/clear")
        terminal.ask("/help\r", "/clear")
        assert kept.read_text() == ""


def test_drafted_tokens_are_coloured():
    with session("--show-drafts", answer="abcdef") as terminal:
        terminal.ask("x\r", "\033[32mab\033[0m\033[33mc\033[0m\033[32mde\033[0m\033[33mf\033[0m")
        terminal.ask("/stats\r", "green: drafted")
