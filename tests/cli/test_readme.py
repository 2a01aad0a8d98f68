"""What README shows is what a person sees."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from cli.test_demo_for_real import outrider

README = (Path(__file__).parents[2] / "README.md").read_text("utf-8")
TRANSCRIPTS = re.findall(r"^```\n\$ outrider (.*?)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def words(text: str) -> str:
    """Without line breaks: README wraps its lines."""
    return " ".join(text.split())


def rows(figures: str) -> list[str]:
    """What the figures are of; they themselves differ from run to run."""
    return [line.split()[0] for line in figures.splitlines() if line.strip()]


@pytest.mark.slow
@pytest.mark.parametrize(("arguments", "shown"), TRANSCRIPTS)
def test_the_transcript_is_what_the_command_prints(arguments, shown):
    ran = outrider(*shlex.split(arguments))
    assert ran.returncode == 0, ran.stderr
    text, limit, figures = shown.partition("stopped at")
    assert words(text) == words(ran.stdout)
    assert rows(limit + figures) == rows(ran.stderr.partition("\n")[2])


def test_there_is_one():
    assert len(TRANSCRIPTS) == 1
