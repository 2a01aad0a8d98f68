"""The recorder of README's picture: a terminal, and nothing but what was printed on it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytest.importorskip("termios", reason="records a terminal as Unix has it")


def recorded(file, program):
    command = [sys.executable, ROOT / "release" / "record_terminal.py", file, sys.executable, "-c", program]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_a_recording_is_what_was_printed_on_a_terminal(tmp_path):
    file = tmp_path / "a.cast"
    program = "import os, sys; print(sys.stdout.isatty(), os.get_terminal_size().columns, '\u00fc\\033[32mgreen')"
    ran = recorded(file, program)
    assert ran.returncode == 0, ran.stderr
    header, *events = map(json.loads, file.read_text("utf-8").splitlines())
    assert header["version"] == 2
    seconds, kinds, texts = zip(*events, strict=True)
    assert list(seconds) == sorted(seconds)
    assert set(kinds) == {"o"}
    assert texts[0].startswith("$ python")
    assert "".join(texts[1:]) == f"True {header['width']} \u00fc\033[32mgreen\r\n"


def test_a_command_that_fails_is_not_recorded(tmp_path):
    file = tmp_path / "a.cast"
    ran = recorded(file, "import sys; sys.exit(3)")
    assert ran.returncode == 1
    assert "failed with exit code 3" in ran.stderr
    assert not file.exists()
