"""What every command shares: where words go (figures and errors to standard error) and how a model is loaded."""

from __future__ import annotations

import errno
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from traceback import clear_frames
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from outrider.errors import OutriderError

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


class OutOfMemoryError(OutriderError):
    """Memory ran out, or the system starts no more threads."""


def exhausted(error: BaseException) -> str | None:
    """Which resource of the system ran out, if that is the error."""
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return "memory"
    # Python's words, and those of std::thread.
    thread_words = ("can't start new thread", "Resource temporarily unavailable")
    if isinstance(error, RuntimeError) and any(words in str(error) for words in thread_words):
        return "threads"
    return None


def exhaustion(what: str, during: str = "", needs: str = "") -> str:
    """A sentence for `exhausted`."""
    if what == "threads":
        return f"the system starts no more threads{during}: lower --threads, or raise its limit (ulimit -u)"
    remedy = "use a smaller model or --context, --quantize q4_0 or --kv-cache-dtype int8, or close other programs"
    return f"memory ran out{during}{needs}: {remedy}"


def load_model(
    model: str,
    *,
    quantize: Quantize = Quantize.none,
    kv_cache_dtype: KvCacheDtype = KvCacheDtype.float16,
    **options: Any,
) -> LLM:
    """`LLM(model, **options)` with a progress bar; reports what quantizing cost, and warns of too many threads.

    Raises:
        OutriderError: as LLM does, or memory ran out.
    """
    from outrider import LLM
    from outrider.llm import too_many_threads

    with progress_bar() as progress, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # said below, without a source line
        task = progress.add_task("opening the checkpoint", total=1.0)

        def advance(what: str, fraction: float) -> None:
            progress.update(task, description=what, completed=fraction)

        options["quantize"] = None if quantize is Quantize.none else quantize.value
        options["kv_cache_dtype"] = kv_cache_dtype.value
        try:
            llm = LLM(model, progress=advance, **options)
        except (MemoryError, OSError, RuntimeError) as error:
            if (what := exhausted(error)) is None:
                raise
            clear_frames(error.__traceback__)  # which hold what was loaded
            raise OutOfMemoryError(exhaustion(what, f" while loading {model}", _needs(model))) from None
    if (warning := too_many_threads(llm.threads)) is not None:
        error_console().print(f"warning: {warning}", style="yellow", markup=False)
    if llm.packed is not None:
        error_console().print(f"weights: {packed_line(llm)}", style="dim", markup=False)
    return llm


def _needs(model: str) -> str:
    """What a model's weights take, for a sentence; nothing if that cannot be found out."""
    from outrider.checkpoints import open_checkpoint

    try:
        weights = sum(tensor.nbytes for tensor in open_checkpoint(model).tensors.values())
    except (MemoryError, OSError, RuntimeError, OutriderError):
        return ""
    return f" (its weights alone take {weights / (1 << 30):.2f} GiB)"


def packed_line(llm: LLM) -> str:
    """What quantizing on load did, in a line."""
    packed = llm.packed
    if packed is None or packed.path is None:
        return "stored in blocks already: nothing to quantize"
    name, error = packed.worst
    return (
        f"quantized, with an error of {packed.error:.1%} of their size ({error:.1%} in {name}); kept in {packed.path}"
    )
