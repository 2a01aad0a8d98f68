"""Help texts: every option says what it is, its unit and its default, in one form."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
import typer

from outrider.cli.app import app


def parameters(command, name="") -> Iterator[tuple[str, object]]:
    """Options and arguments of all commands, each with a name to find it by."""
    for parameter in command.params:
        if parameter.name != "help":
            yield f"{name} {'/'.join(parameter.opts)}".strip(), parameter
    for each in command.list_commands(None) if hasattr(command, "list_commands") else ():
        yield from parameters(command.get_command(None, each), f"{name} {each}".strip())


ALL = dict(parameters(typer.main.get_command(app)))
UNITS = {
    r"context|tokens|shared_history": "TOKENS",
    r"seconds|timeout|keep_alive|idle_unload": "SECONDS",
    r"minutes": "MINUTES",
    r"prefix_cache$|prefix_cache_disk": "GIB",
    r"bandwidth": "GB/S",
}


def test_commands_have_options():
    assert len(ALL) > 100


@pytest.mark.parametrize("name", ALL)
def test_an_option_explains_itself(name):
    parameter = ALL[name]
    assert parameter.help, "has no help text"
    assert re.fullmatch(r'["A-Z].*\.', parameter.help), "is a phrase that begins with a capital and ends in a full stop"


@pytest.mark.parametrize("name", ALL)
def test_an_option_says_its_default(name):
    parameter = ALL[name]
    if parameter.param_type_name == "option" and not parameter.required and parameter.default in (None, []):
        assert isinstance(parameter.show_default, str), "say what holds without it: show_default"


@pytest.mark.parametrize("command", sorted({name.rpartition(" ")[0] for name in ALL}))
def test_a_value_has_a_name(call, command):
    shown = call(*command.split(), "--help").out
    assert not re.search("--.*<path>", shown), "is a FILE, a DIR or a PATH: say which by metavar"
    arguments = [each for name, each in ALL.items() if name.startswith(f"{command} ") and each.opts[0][0] != "-"]
    assert all(re.fullmatch("[A-Z0-9]+", str(each.metavar)) for each in arguments)


@pytest.mark.parametrize("name", ALL)
def test_an_option_has_the_unit_of_its_kind(name):
    parameter = ALL[name]
    units = [unit for kind, unit in UNITS.items() if re.search(kind, parameter.name)]
    if units:
        assert [parameter.metavar] == units


@pytest.mark.parametrize("command", ["", "bench", *sorted({name.rpartition(" ")[0] for name in ALL} - {""})])
def test_nothing_is_cut_off_in_80_columns(call, monkeypatch, command):
    monkeypatch.setenv("COLUMNS", "80")
    shown = call(*command.split(), "--help").out
    assert not re.search(r"[a-z],?\.\.\.|…", shown)
    options = [name.split()[-1].split("/") for name in ALL if name.rpartition(" ")[0] == command]
    assert all(f"{option} " in shown for names in options for option in names if option.startswith("-"))
