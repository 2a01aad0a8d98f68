"""The table of commands and what they have in common: lazy loading, errors, exit codes."""

from __future__ import annotations

import errno
import os
import sys
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from outrider.cli.inspect import inspect
from outrider.cli.plan import plan
from outrider.cli.run import run
from outrider.console import exhausted, exhaustion, show_error
from outrider.errors import OutriderError
from outrider.system import use_utf8

COMMAND_FAMILIES = {
    "batch": "outrider.cli.batch",
    "bench": "outrider.cli.bench",
    "serve": "outrider.cli.serve",
    "train-drafter": "outrider.cli.train",
}
"""Commands of other packages, each an `app` in its module. Loaded by name when they are called: `outrider run` must not
pay for them."""


class CommandTable(TyperGroup):
    """The commands of this package and, by name, those of the others."""

    def list_commands(self, ctx: typer.Context) -> list[str]:  # type: ignore[override]
        return [*super().list_commands(ctx), *COMMAND_FAMILIES]  # type: ignore[arg-type]

    def get_command(self, ctx: typer.Context, cmd_name: str) -> Any:  # type: ignore[override]
        if cmd_name not in COMMAND_FAMILIES:
            return super().get_command(ctx, cmd_name)  # type: ignore[arg-type]
        command = typer.main.get_command(import_module(COMMAND_FAMILIES[cmd_name]).app)
        command.name = cmd_name
        return command


app = typer.Typer(
    cls=CommandTable,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Speculative decoding for Gemma 3 and Gemma 4 on CPUs: the same tokens in fewer passes.",
)
app.command()(run)
app.command()(inspect)
app.command()(plan)


def _print_version(wanted: bool) -> None:
    if wanted:
        from outrider import __version__

        print(f"outrider {__version__}")
        raise typer.Exit


@app.callback()
def options(
    show_version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """Options before any command."""


def main() -> None:
    """Runs the command line. Exit codes: 0, 1 (a check failed, or the output cannot be written), 2 (a person has to
    change something), 130 (Ctrl-C)."""
    use_utf8()
    try:
        try:
            app(prog_name="outrider")
        finally:
            _flush_output()  # else Python would, at its very end, and fail with a traceback
    except OutriderError as problem:
        show_error(problem if (what := exhausted(problem)) is None else exhaustion(what))
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        _drop_output()  # whoever read it has enough
        sys.exit(1)
    except (MemoryError, OSError, RuntimeError) as error:
        if (what := exhausted(error)) is not None:
            show_error(exhaustion(what))
            sys.exit(2)
        if not isinstance(error, OSError) or error.errno not in _FULL:
            raise
        _drop_output()
        what = error.filename or "the output"
        show_error(f"{what} cannot be written ({error.strerror}): free space on its disk, or write elsewhere")
        sys.exit(1)


_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def _flush_output() -> None:
    if sys.stdout is not None and not sys.stdout.closed:
        sys.stdout.flush()


def _drop_output() -> None:
    """Where standard output cannot be written, what is buffered must not fail again when Python flushes it."""
    try:
        _flush_output()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
