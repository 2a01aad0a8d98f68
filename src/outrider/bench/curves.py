"""What a pass costs: over how many rows (`bench verify`), and for a whole prompt (`bench prefill`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from statistics import median
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from outrider.bench.forecast import Forecast
from outrider.bench.interleave import interleaved
from outrider.bench.usual_pace import changes_of_pace, read_gauge
from outrider.console import error_console, progress_bar

if TYPE_CHECKING:
    from outrider import LLM
    from outrider.bench.peer import LlamaCpp

ROWS = (1, 2, 4, 8, 16)
_PASSES = 3
"""Passes timed in one turn, after one that is not: it finds in the caches what others left there."""


@dataclass(frozen=True)
class MemoryLimit:
    """Decoding without drafts reads every weight once per token, and can be no faster than that."""

    bytes_per_second: float
    bytes_per_token: int

    @property
    def tokens_per_second(self) -> float:
        """Most tokens per second without drafts."""
        return self.bytes_per_second / self.bytes_per_token

    def as_dict(self) -> dict[str, float]:
        """The fields of `--json`."""
        return {
            "read_bytes_per_second": self.bytes_per_second,
            "bytes_per_token": self.bytes_per_token,
            "limit_tokens_per_second": self.tokens_per_second,
        }


def memory_limit(llm: LLM) -> MemoryLimit:
    """Measures how fast this machine reads memory, and says so before anything else is measured."""
    from outrider.backends import cpu
    from outrider.checkpoints import open_checkpoint
    from outrider.checkpoints.traffic import weight_traffic

    bytes_per_second = cpu.read_bandwidth(cpu.ThreadPool(llm.threads))
    traffic = weight_traffic(open_checkpoint(llm.path).tensors, llm.config)
    # Some formats grow a little when they are packed; of a mixture of experts a token reads only a part.
    limit = MemoryLimit(bytes_per_second, round(llm.weight_bytes * traffic.per_token / traffic.swept))
    error_console().print(
        f"{llm.path.name}, {llm.threads} threads. Memory is read at {bytes_per_second / 1e9:.1f} GB/s and a token "
        f"reads {limit.bytes_per_token / 1e6:.0f} MB: at most {limit.tokens_per_second:.1f} tok/s without drafts.",
        style="dim",
    )
    return limit


def measure_verify(llm: LLM, peer: LlamaCpp | None, *, context: int, rounds: int) -> dict[str, Any]:
    """Median milliseconds of a pass over 1, 2, 4, 8 and 16 rows at the machine's usual pace, all measured in turns.

    So are the machine's own figures, from which `outrider plan` predicts the same passes.
    """
    forecast = Forecast(llm, context)
    arms: dict[tuple[str, int], Callable[[], list[float]]] = {("forecast", 0): lambda: forecast.seconds(ROWS)}
    for rows in ROWS:
        arms["outrider", rows] = lambda rows=rows: llm.measure.verify(rows, context, _PASSES + 1)[1:]  # type: ignore[misc]
        if peer is not None:
            arms["peer", rows] = lambda rows=rows: peer.verify(rows, context, _PASSES)  # type: ignore[misc]
    with progress_bar() as progress:
        task = progress.add_task("measuring passes", total=rounds * len(arms))
        gauge = partial(read_gauge, llm, context)
        measured, pace = interleaved(arms, rounds, gauge, lambda: progress.advance(task))
    result: dict[str, Any] = {"rows": list(ROWS), **_curve([_median(measured["outrider", rows]) for rows in ROWS])}
    result |= {"model": llm.path.name, "threads": llm.threads, "context": context, **pace.as_dict()}
    result["predicted_milliseconds"] = [1000 * median(of) for of in zip(*measured["forecast", 0], strict=True)]
    if peer is not None:
        result["peer"] = _about(peer) | _curve([_median(measured["peer", rows]) for rows in ROWS])
    return result


def measure_prefill(llm: LLM, peer: LlamaCpp | None, *, tokens: int, rounds: int) -> dict[str, Any]:
    """Median seconds, and tokens per second, of a prompt of `tokens` tokens from an empty cache, at the usual pace."""
    # Which tokens they are does not matter to the time.
    prompt = [1000 + (7919 * i) % 40_000 for i in range(tokens)]
    arms: dict[str, Callable[[], list[float]]] = {
        "outrider": lambda: llm.measure.prefill(tokens, 1, llm.engine.chunk),
    }
    if peer is not None:
        arms["peer"] = lambda: peer.prefill(prompt).seconds
    with progress_bar() as progress:
        task = progress.add_task("measuring prefill", total=(rounds + 1) * len(arms))
        gauge = partial(read_gauge, llm)
        interleaved(arms, 1, gauge, lambda: progress.advance(task))  # touches everything for the first time
        measured, pace = interleaved(arms, rounds, gauge, lambda: progress.advance(task))
    result: dict[str, Any] = {"tokens": tokens, **_speed(tokens, _median(measured["outrider"]))}
    result |= {"model": llm.path.name, "threads": llm.threads, **pace.as_dict()}
    if peer is not None:
        result["peer"] = _about(peer) | _speed(tokens, _median(measured["peer"]))
    return result


def show_verify(result: dict[str, Any]) -> None:
    """The cost curve for a person."""
    peer = result.get("peer")
    console = Console(highlight=False)
    console.print(f"{result['model']}, {result['threads']} threads: a pass over M rows, context {result['context']}")
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    table.add_column("M", justify="right")
    for name in ("outrider", *([peer["name"]] if peer else [])):
        table.add_column(name, justify="right")
        table.add_column("c(M)/c(1)", justify="right")
    table.add_column("predicted", justify="right")
    for i, rows in enumerate(result["rows"]):
        cells = [f"{of['milliseconds'][i]:.2f} ms" for of in (result, peer) if of]
        ratios = [f"{of['ratio'][i]:.2f}" for of in (result, peer) if of]
        paired = (cell for pair in zip(cells, ratios, strict=True) for cell in pair)
        off = result["predicted_milliseconds"][i] / result["milliseconds"][i] - 1
        table.add_row(str(rows), *paired, f"{result['predicted_milliseconds'][i]:.2f} ms ({off:+.0%})")
    console.print(table)
    _show_pace(console, result)


def show_prefill(result: dict[str, Any]) -> None:
    """The prefill speed for a person."""
    console = Console(highlight=False)
    for name, of in (("outrider", result), (result.get("peer", {}).get("name"), result.get("peer"))):
        if of:
            speed = f"{of['tokens_per_second']:.0f} tok/s"
            console.print(f"{name}: {result['tokens']} tokens in {of['seconds']:.3f} s, {speed}")
    _show_pace(console, result)


def _show_pace(console: Console, result: dict[str, Any]) -> None:
    if changes := changes_of_pace(result):
        console.print(f"{changes} Counted is its usual pace, that of {result['usual_pace_share']:.0%} of the time.")


def _median(measured: Sequence[Sequence[float]]) -> float:
    return median(chain.from_iterable(measured))


def _curve(seconds: list[float]) -> dict[str, list[float]]:
    return {"milliseconds": [1000 * s for s in seconds], "ratio": [s / seconds[0] for s in seconds]}


def _speed(tokens: int, seconds: float) -> dict[str, float]:
    return {"seconds": seconds, "tokens_per_second": tokens / seconds}


def _about(peer: LlamaCpp) -> dict[str, str]:
    return {"name": "llama.cpp", "version": f"llama-cpp-python {peer.version}"}
