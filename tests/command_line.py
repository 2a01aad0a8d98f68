"""The command line with a model that answers at once."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import pytest
from fake_llm import FakeLLM

import outrider
from outrider.cli import main


@dataclass
class Ran:
    """What a command left behind."""

    code: int
    out: str
    err: str


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> type[FakeLLM]:
    """A fresh class of fake models in the place of LLM."""

    class Fake(FakeLLM):
        made: ClassVar[list[FakeLLM]] = []

    monkeypatch.setattr(outrider, "LLM", Fake)
    return Fake


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """Runs `outrider` with arguments and what is piped in."""

    def run(*arguments: str, stdin: bytes | io.BytesIO = b"") -> Ran:
        piped = stdin if isinstance(stdin, io.BytesIO) else io.BytesIO(stdin)
        monkeypatch.setattr(sys, "argv", ["outrider", *arguments])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(piped, encoding="utf-8"))
        monkeypatch.setenv("COLUMNS", "200")
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        captured = capsys.readouterr()
        return Ran(code, captured.out, captured.err)

    return run
