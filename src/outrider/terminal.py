"""What every command shares: where words go (figures and errors to standard error) and how a model is loaded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer
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


DrafterOption = Annotated[
    str, typer.Option(metavar="auto|off|PATH", help="The MTP drafter: the one beside the model, none, or PATH.")
]


class Quantize(StrEnum):
    """What becomes of floating-point weights."""

    none = "none"
    q4_0 = "q4_0"
    q8_0 = "q8_0"


QuantizeOption = Annotated[
    Quantize, typer.Option(help="Floating-point weights as they are, or in blocks of 4 or 8 bits, made once and kept.")
]


class KvCacheDtype(StrEnum):
    """How keys and values are kept."""

    float16 = "float16"
    float32 = "float32"
    int8 = "int8"


KvCacheOption = Annotated[
    KvCacheDtype, typer.Option(help="How keys and values are kept: int8 takes half the memory of float16.")
]


def load_model(
    model: str,
    *,
    quantize: Quantize = Quantize.none,
    kv_cache_dtype: KvCacheDtype = KvCacheDtype.float16,
    **options: Any,
) -> LLM:
    """`LLM(model, **options)` with a progress bar; says what quantizing cost.

    Raises:
        OutriderError: as LLM does.
    """
    from outrider import LLM

    with progress_bar() as progress:
        task = progress.add_task("opening the checkpoint", total=1.0)

        def advance(what: str, fraction: float) -> None:
            progress.update(task, description=what, completed=fraction)

        options["quantize"] = None if quantize is Quantize.none else quantize.value
        options["kv_cache_dtype"] = kv_cache_dtype.value
        llm = LLM(model, progress=advance, **options)
    if llm.packed is not None:
        error_console().print(f"weights: {packed_line(llm)}", style="dim", markup=False)
    return llm


def packed_line(llm: LLM) -> str:
    """What quantizing on load did, in a line."""
    packed = llm.packed
    if packed is None or packed.path is None:
        return "stored in blocks already: nothing to quantize"
    name, error = packed.worst
    return (
        f"quantized, with an error of {packed.error:.1%} of their size ({error:.1%} in {name}); kept in {packed.path}"
    )
