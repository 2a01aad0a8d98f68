"""What every command shares: where words go (figures and errors to standard error) and the bar while a model loads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from outrider import LLM


def error_console() -> Console:
    """A console on standard error, as it is now (tests and shells replace it)."""
    return Console(stderr=True, highlight=False, soft_wrap=True)


def show_error(problem: BaseException | str) -> None:
    """One red line."""
    error_console().print(f"error: {problem}", style="red", markup=False)


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """A bar on standard error that leaves nothing behind; silent where that is no terminal."""
    console = error_console()
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        yield progress


def load_model(model: str, **options: Any) -> LLM:
    """`LLM(model, **options)` with a progress bar.

    Raises:
        OutriderError: as LLM does.
    """
    from outrider import LLM

    with progress_bar() as progress:
        task = progress.add_task("opening the checkpoint", total=1.0)

        def advance(what: str, fraction: float) -> None:
            progress.update(task, description=what, completed=fraction)

        return LLM(model, progress=advance, **options)
