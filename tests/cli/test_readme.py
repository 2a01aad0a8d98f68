"""What README shows is what a person sees, and its figures are those of the report."""

from __future__ import annotations

import json
import re
import shlex
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import typer
from cli.test_demo_for_real import outrider

from outrider.bench.decode import show_decode
from outrider.cli.app import app

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")
TRANSCRIPTS = dict(re.findall(r"^```\n\$ outrider (.*?)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL))
FIGURES = json.loads((ROOT / "docs/report/demo/figures.json").read_text("utf-8"))["decode"]


def transcript(command: str) -> tuple[list[str], str]:
    """The arguments of the one that is shown, and what README shows of its output."""
    ((arguments, shown),) = [each for each in TRANSCRIPTS.items() if each[0].startswith(command)]
    return shlex.split(arguments), shown


def words(text: str) -> str:
    """Without line breaks: README wraps its lines."""
    return " ".join(text.split())


def assert_shows(shown: str, printed: str) -> None:
    """README leaves lines out where it has "...", and shows the others in their order."""
    rest = words(printed)
    for part in map(words, re.split(r"^\.\.\.$", shown, flags=re.MULTILINE)):
        if part:
            _, found, rest = rest.partition(part)
            assert found, part


def rows(figures: str) -> list[str]:
    """What the figures are of; they themselves differ from run to run."""
    return [line.split()[0] for line in figures.splitlines() if line.strip()]


def test_there_are_five_commands():
    assert [command.split()[0] for command in TRANSCRIPTS] == ["run", "bench", "plan", "inspect", "serve"]


@pytest.mark.slow
def test_an_answer_and_its_figures():
    arguments, shown = transcript("run")
    ran = outrider(*arguments)
    assert ran.returncode == 0, ran.stderr
    text, limit, figures = shown.partition("stopped at")
    assert words(text) == words(ran.stdout)
    assert rows(limit + figures) == rows(ran.stderr.partition("\n")[2])


def test_the_bench_is_the_one_of_the_report(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    arguments, shown = transcript("bench decode")
    assert arguments == ["bench", "decode", "demo"]
    show_decode(FIGURES)
    printed = capsys.readouterr().out
    assert_shows(shown, printed)
    assert "…" not in printed, "a cell is cut off"


@pytest.mark.slow
@pytest.mark.parametrize("command", ["plan", "inspect"])
def test_a_command_that_measures_nothing(command):
    arguments, shown = transcript(command)
    ran = outrider(*arguments)
    assert ran.returncode == 0, ran.stderr
    assert_shows(shown, ran.stdout)


@pytest.mark.slow
def test_a_server_at_its_start():
    arguments, shown = transcript("serve")
    program = "from outrider.cli import main; main()"
    command = [sys.executable, "-c", program, *arguments, "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        printed = ""
        while "Ctrl-C stops it" not in printed and (line := server.stderr.readline()):
            printed += line
        server.send_signal(signal.SIGTERM)
        printed += server.stderr.read()

    def unnumbered(text: str) -> str:
        return re.sub(r"\d+ threads? \(.*?\)|(?<=127\.0\.0\.1:)\d+", "N", words(text))

    assert_shows(unnumbered(shown), unnumbered(printed))


def test_the_table_has_the_figures_of_the_report():
    cells = [
        re.findall(r"[^|* ][^|*]*[^|* ]", line) for line in README.splitlines() if re.match(r"\|.*\d\.\d\d-\d", line)
    ]
    assert len(cells) > 3
    for name, *shown in cells:
        of = FIGURES["total"] if name.startswith("all ") else FIGURES["categories"][name]
        assert shown == [
            f"{of['plain_tokens_per_second']:.1f}",
            f"{of['mtp_tokens_per_second']:.1f}",
            f"{of['speedup']:.2f}",
            "{:.2f}-{:.2f}".format(*of["interval"]),
            f"{of['tokens_per_pass']:.2f}",
        ], name
    speedups = {name: of["speedup"] for name, of in FIGURES["categories"].items()}
    assert {max(speedups, key=speedups.get), min(speedups, key=speedups.get)} < {name for name, *_ in cells}


def test_the_claim_is_one_number():
    total = FIGURES["total"]
    claim = "**{:.2f} times** as fast (95 % interval {:.2f} to {:.2f})".format(total["speedup"], *total["interval"])
    assert claim in (ROOT / "docs/performance.md").read_text("utf-8")


def test_what_it_is_is_said_once():
    said = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["description"]
    assert typer.main.get_command(app).help == f"{said}."
    assert f'site_description: "{said}"\n' in (ROOT / "mkdocs.yml").read_text("utf-8")


def test_pictures_are_there_and_small():
    pictures = re.findall(r"!\[([^\]]+)\]\((.+?)\)", README)
    assert {Path(name).suffix for _, name in pictures} == {".svg", ".webp"}
    for text, name in pictures:
        assert len(text) > 40, "a text for those who do not see it"
        assert (ROOT / name).stat().st_size < 300_000
