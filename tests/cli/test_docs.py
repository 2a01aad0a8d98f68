"""The commands that the documentation shows can be typed."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from outrider.cli.app import app

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
TABLE = typer.main.get_command(app)


def code_blocks(page: Path) -> list[str]:
    """What the page shows to be typed, or shows of a shell."""
    return re.findall(r"^```(?:bash|console|sh)?\n(.*?)^```", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)


def commands(page: Path) -> list[list[str]]:
    """The `outrider` commands in the page's blocks of code, split into words."""
    lines = "\n".join(code_blocks(page)).replace("\\\n", " ").splitlines()
    found = [line.partition("  #")[0].removeprefix("$ ").split("| ")[-1] for line in lines]
    return [shlex.split(each, comments=True)[1:] for each in found if each.startswith("outrider ")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_option_that_a_page_shows_exists(page):
    for words in commands(page):
        command, rest = TABLE, list(words)
        while hasattr(command, "get_command") and rest:
            name = rest.pop(0).partition("|")[0]
            command = command.get_command(None, name)
            assert command is not None, words
        known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        shown = {word.partition("=")[0] for word in rest if word.startswith("--")}
        assert shown <= known | {"--help"}, words


def test_pages_show_commands():
    assert sum(len(commands(page)) for page in PAGES) > 40


def typed(lines):
    """What lines print in a shell where `outrider` is this one."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path}
    return subprocess.run(["bash", "-c", lines], env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout


@pytest.mark.slow
def test_the_quick_start_shows_that_answers_are_the_same(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (block,) = (block for block in code_blocks(ROOT / "docs" / "index.md") if "diff " in block)
    assert typed(block) == "same\n"
    assert len((tmp_path / "drafted").read_text()) > 100
