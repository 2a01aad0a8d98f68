"""Progress bars on standard error, or in a notebook."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress


def error_console() -> Console:
    """A console on standard error, as it is now (tests and shells replace it)."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, soft_wrap=True)


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """A bar on standard error, or in a notebook's cell, that leaves nothing behind; silent where neither is there."""
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    console = error_console()
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        yield progress


@contextmanager
def loading_bar(given: Callable[[str, float], None] | bool | None) -> Iterator[Callable[[str, float], None]]:
    """Where to report the progress of loading.

    Args:
        given: the caller's own function; False for none; else a bar where one can be shown.
    """
    if callable(given):
        yield given
    elif given is False or not (_is_terminal() or _is_notebook()):
        yield _ignore
    else:
        with progress_bar() as progress:
            task = progress.add_task("opening the checkpoint", total=1.0)
            yield lambda what, fraction: progress.update(task, description=what, completed=fraction)


def _is_terminal() -> bool:
    return sys.stderr is not None and sys.stderr.isatty()


def _is_notebook() -> bool:
    """Whether rich can draw in a notebook's cell."""
    return "ipykernel" in sys.modules and find_spec("ipywidgets") is not None


def _ignore(_what: str, _fraction: float) -> None:
    """No progress is shown."""
