"""What commands share: options, tables and JSON, errors, log lines, and how a model is loaded."""

from __future__ import annotations

import json
import logging
import sys
import warnings
from collections.abc import Callable, Iterable
from enum import StrEnum
from pathlib import Path
from traceback import clear_frames
from typing import TYPE_CHECKING, Annotated, Any

import typer

from outrider.errors import OutriderError, UsageError, memory_ran_out
from outrider.progress import error_console, progress_bar

if TYPE_CHECKING:
    from rich.table import Table

    from outrider import LLM

__all__ = ["error_console", "progress_bar"]


def show_error(problem: BaseException | str) -> None:
    """One red line."""
    error_console().print(f"error: {problem}", style="red", markup=False)


MODEL_HELP = '"demo", a .gguf file, a folder with config.json, a hub id, or ollama:NAME.'
ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help=MODEL_HELP, show_default=False)]
ModelsArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="MODEL",
        help='"demo", .gguf files, folders with config.json, hub ids, or ollama:NAME.',
        show_default=False,
    ),
]
LookupOption = Annotated[
    bool, typer.Option("--lookup/--no-lookup", help="Also draft by prompt lookup (n-gram matches).")
]
ThreadsOption = Annotated[int | None, typer.Option(help="Compute threads.", show_default="one per usable core")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
ContextOption = Annotated[
    int | None,
    typer.Option(metavar="TOKENS", help="Context size of a request: prompt and answer.", show_default="the model's"),
]

PrefixCacheDirOption = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Folder for keys and values that leave memory, which then outlive the process; not encrypted.",
        show_default="memory only",
    ),
]
PrefixCacheDiskOption = Annotated[
    float | None,
    typer.Option(min=0, metavar="GIB", help="Size limit of --prefix-cache-dir.", show_default="10"),
]

DrafterOption = Annotated[
    str, typer.Option(metavar="auto|off|PATH", help="MTP drafter: the model's own, none, or PATH.")
]


LoraOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="[NAME=]PATH",
        help="LoRA adapter: a PEFT folder, a GGUF adapter or a hub id; may be repeated. Without NAME: one that is "
        "merged into floating-point weights.",
        show_default="none",
    ),
]


LoraDrafterOption = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME=PATH", help="MTP drafter of an adapter; may be repeated.", show_default="the model's"),
]


def adapter_drafters(given: list[str] | None) -> dict[str, str]:
    """`--lora-drafter` as LLM takes it. Raises UsageError."""
    named: dict[str, str] = {}
    for each in given or ():
        name, _, path = each.partition("=")
        if not (name and path):
            raise UsageError(f"--lora-drafter {each} does not name its adapter: write --lora-drafter NAME=PATH")
        named[name] = path
    return named


def adapters(given: list[str] | None) -> str | dict[str, str]:
    """`--lora` as LLM takes it: a path to merge, or names and paths. Raises UsageError."""
    named: dict[str, str] = {}
    for each in given or ():
        name, equals, path = each.partition("=")
        if not equals and given == [each]:
            return each
        if not (name and path):
            raise UsageError(f"--lora {each} does not name one of several adapters: write --lora NAME=PATH")
        if name in named:
            raise UsageError(f"--lora gives two adapters the name {name}: choose another for one of them")
        named[name] = path
    return named


class Quantize(StrEnum):
    """Block format of floating-point weights."""

    none = "none"
    q4_0 = "q4_0"
    q8_0 = "q8_0"


QuantizeOption = Annotated[
    Quantize, typer.Option(help="Block format for floating-point weights: quantized once, and cached on disk.")
]


class KvCacheDtype(StrEnum):
    """Format of keys and values."""

    int8 = "int8"
    float16 = "float16"
    float32 = "float32"


KvCacheOption = Annotated[
    KvCacheDtype,
    typer.Option(
        help="Format of the key-value cache; int8 is 8-bit in layers of full attention, float16 in sliding ones."
    ),
]


class LogLevel(StrEnum):
    """Python's log levels."""

    debug = "debug"
    info = "info"
    warning = "warning"
    error = "error"


LogLevelOption = Annotated[LogLevel, typer.Option(help="Log level on standard error; info logs every request.")]


def print_result(result: dict[str, Any], show: Callable[[dict[str, Any]], None], as_json: bool) -> None:
    """Figures as one JSON object, or by `show`."""
    if as_json:
        print(json.dumps(result))
    else:
        show(result)


def figures_table(first: str, *others: str) -> Table:
    """A table without rows: names in the first column, figures in the others, aligned right."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    table.add_column(first, no_wrap=True)
    for name in others:
        table.add_column(name, justify="right")
    return table


def print_facts(facts: Iterable[tuple[str, str]]) -> None:
    """Names and what belongs to them, in two columns."""
    from rich.console import Console
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    for name, fact in facts:
        table.add_row(name, fact)
    Console(highlight=False).print(table)


class _StandardError(logging.Handler):
    """Standard error as it is when a line is printed."""

    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), file=sys.stderr)


def log_to_stderr(level: LogLevel) -> None:
    """Prints the package's log lines on standard error, each with its time, level and logger."""
    logger = logging.getLogger("outrider")
    if not any(isinstance(handler, _StandardError) for handler in logger.handlers):
        handler = _StandardError()
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        logger.addHandler(handler)
    logger.setLevel(level.upper())


class OutOfMemoryError(OutriderError):
    """Memory ran out, or the system starts no more threads."""


def exhausted(error: BaseException) -> str | None:
    """Which resource of the system ran out, if that is the error."""
    if memory_ran_out(error):
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
    remedy = "use a smaller model or --context, or --quantize q4_0, or close other programs"
    return f"memory ran out{during}{needs}: {remedy}"


def load_model(
    model: str,
    *,
    quantize: Quantize = Quantize.none,
    kv_cache_dtype: KvCacheDtype = KvCacheDtype.int8,
    prefix_cache_disk: float | None = None,
    **options: Any,
) -> LLM:
    """`LLM(model, **options)` with a progress bar; reports what quantizing cost, and warns of too many threads.

    Args:
        prefix_cache_disk: in GiB.

    Raises:
        OutriderError: as LLM does, or memory ran out.
    """
    from outrider import LLM
    from outrider.cores import too_many_threads

    options["quantize"] = None if quantize is Quantize.none else quantize.value
    options["kv_cache_dtype"] = kv_cache_dtype.value
    options["prefix_cache_disk"] = None if prefix_cache_disk is None else int(prefix_cache_disk * (1 << 30))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # printed below, without a source line
        try:
            llm = LLM(model, **options)
        except (MemoryError, OSError, RuntimeError, OutriderError) as error:
            if (what := exhausted(error)) is None:
                raise
            clear_frames(error.__traceback__)  # which hold what was loaded
            raise OutOfMemoryError(exhaustion(what, f" while loading {model}", _needs(model))) from None
    if (warning := too_many_threads(llm.parts.threads)) is not None:
        error_console().print(f"warning: {warning}", style="yellow", markup=False)
    if llm.parts.packed is not None:
        error_console().print(f"weights: {packed_line(llm)}", style="dim", markup=False)
    return llm


def _needs(model: str) -> str:
    """What a model's weights take, for a sentence; nothing if that cannot be found out."""
    from outrider.checkpoints import open_checkpoint
    from outrider.fit import packed_bytes

    try:
        weights = packed_bytes(open_checkpoint(model).tensors)
    except (MemoryError, OSError, RuntimeError, OutriderError):
        return ""
    return f" (its weights alone take {weights / (1 << 30):.2f} GiB)"


def threads_line(threads: int, asked: int | None) -> str:
    """How many threads compute, and why so many."""
    from outrider.cores import cores

    return f"{threads} thread{'s' if threads > 1 else ''} ({'as asked' if asked else cores().why})"


def packed_line(llm: LLM) -> str:
    """What quantizing on load did, in a line."""
    packed = llm.parts.packed
    if packed is None or packed.path is None:
        return "stored in blocks already: nothing to quantize"
    name, error = packed.worst
    return (
        f"quantized, with an error of {packed.error:.1%} of their size ({error:.1%} in {name}); kept in {packed.path}"
    )
