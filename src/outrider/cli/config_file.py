"""Options of a command from a TOML file."""

from __future__ import annotations

import tomllib
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any

import typer

from outrider.errors import UsageError


def _use(context: typer.Context, file: Path | None) -> Path | None:
    if file is not None:
        context.default_map = {**(context.default_map or {}), **_read(file, context)}
    return file


ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        is_eager=True,
        callback=_use,
        help="Options from a TOML file; those of the command line take precedence.",
        show_default="none",
    ),
]


def _read(file: Path, context: typer.Context) -> dict[str, Any]:
    """Parameter -> value.

    Raises:
        UsageError: the file cannot be read, or has a key that is not an option of the command.
    """
    try:
        given = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"--config {file} cannot be read ({error.strerror}): check its path") from error
    except ValueError as error:
        raise UsageError(f"--config {file} is not TOML ({error}): correct it") from error
    known = {parameter.name for parameter in context.command.params if parameter.name} - {"config", "help"}
    several = {p.name for p in context.command.params if p.nargs == -1 or getattr(p, "multiple", False)}
    options = {key.replace("-", "_"): value for key, value in given.items()}
    options |= {name: [value] for name, value in options.items() if name in several and isinstance(value, str)}
    for name in options.keys() - known:
        close = get_close_matches(name, sorted(known), 1) or ["the options of --help"]
        raise UsageError(f"--config {file} has the key {name}, which is not an option: did you mean {close[0]}?")
    return options
