"""What a pass costs: over M rows (`outrider bench verify`), and over a prompt (`outrider bench prefill`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import geometric_mean, median
from typing import TYPE_CHECKING, Any

from rich.console import Console

from outrider.bench.interleave import estimate, interleaved
from outrider.console import figures_table, progress_bar
from outrider.roofline.cost import pass_seconds
from outrider.roofline.measured import Machine
from outrider.roofline.work import target_work

if TYPE_CHECKING:
    from outrider import LLM
    from outrider.bench.peer import LlamaCpp

ROWS = (1, 2, 4, 8, 16)
_PASSES = 3
"""Passes timed in one turn, after one that is not: it finds in the caches what the turn before left there."""


def measure_verify(llm: LLM, peer: LlamaCpp | None, *, context: int, rounds: int) -> dict[str, Any]:
    """Milliseconds of passes over 1, 2, 4, 8 and 16 rows, all row counts in turns.

    A turn counts with the median of its passes. `ratio` is the geometric mean, over the rounds, of a round's turn over
    M rows against its turn over one, `interval` its bootstrap 95 % interval; milliseconds are geometric means too, so
    that the ratio is their quotient. In the same turns the machine's two numbers are measured, from which
    `outrider plan` predicts the same passes.
    """
    from outrider.checkpoints import open_checkpoint

    tensors = llm.parts.packed.tensors if llm.parts.packed else open_checkpoint(llm.path).tensors
    work = target_work(tensors, llm.config)
    machine = Machine(work.main_format, llm.parts.threads)
    arms: dict[tuple[str, int], Callable[[], Sequence[float]]] = {("machine", 0): machine.sample}
    for rows in ROWS:
        arms["outrider", rows] = lambda rows=rows: llm.parts.measure.verify(rows, context, _PASSES + 1)[1:]  # type: ignore[misc]
        if peer is not None:
            arms["peer", rows] = lambda rows=rows: peer.verify(rows, context, _PASSES)  # type: ignore[misc]
    with progress_bar() as progress:
        task = progress.add_task("measuring passes", total=rounds * len(arms))
        measured = interleaved(arms, rounds, lambda: progress.advance(task))
    on = machine.hardware([(read, multiplied) for read, multiplied in measured["machine", 0]])
    load: dict[str, Any] = {"context": context, "kv_format": llm.parts.kv_cache_dtype}
    result: dict[str, Any] = {
        "rows": list(ROWS),
        **_curve([measured["outrider", rows] for rows in ROWS]),
        "predicted_milliseconds": [1000 * pass_seconds(work, on, rows=rows, **load) for rows in ROWS],
        **{"model": llm.path.name, "threads": llm.parts.threads, "context": context, "rounds": rounds},
        "read_bytes_per_second": on.bytes_per_second,
        "multiply_adds_per_second": on.multiply_adds_per_second,
        "bytes_per_token": work.bytes_per_token,
        "limit_tokens_per_second": on.bytes_per_second / work.bytes_per_token,
    }
    if peer is not None:
        result["peer"] = peer.about | _curve([measured["peer", rows] for rows in ROWS])
    return result


def _curve(measured: Sequence[Sequence[Sequence[float]]]) -> dict[str, Any]:
    """The curve of one engine.

    Args:
        measured: for each row count, for each round, the seconds of its passes.
    """
    by_rows = [[median(passes) for passes in rounds] for rounds in measured]
    ratios = [estimate([[many / one] for many, one in zip(of, by_rows[0], strict=True)]) for of in by_rows]
    return {
        "milliseconds": [1000 * geometric_mean(of) for of in by_rows],
        "ratio": [of.value for of in ratios],
        "interval": [list(of.interval) for of in ratios],
    }


def measure_prefill(llm: LLM, peer: LlamaCpp | None, *, tokens: int, rounds: int) -> dict[str, Any]:
    """Seconds and tokens per second of a prompt of `tokens` tokens from an empty cache: geometric means over rounds."""
    prompt = [1000 + (7919 * i) % 40_000 for i in range(tokens)]  # the time does not depend on which tokens they are
    arms: dict[str, Callable[[], float]] = {
        "outrider": lambda: llm.parts.measure.prefill(tokens, 1, llm.parts.engine.chunk)[0],
    }
    if peer is not None:
        arms["peer"] = lambda: peer.prefill(prompt)
    with progress_bar() as progress:
        task = progress.add_task("measuring prefill", total=(rounds + 1) * len(arms))
        interleaved(arms, 1, lambda: progress.advance(task))  # not counted: the first finds cold caches
        measured = interleaved(arms, rounds, lambda: progress.advance(task))
    seconds = {arm: geometric_mean(of) for arm, of in measured.items()}
    result: dict[str, Any] = {"tokens": tokens, **_speed(tokens, seconds["outrider"])}
    result |= {"model": llm.path.name, "threads": llm.parts.threads, "rounds": rounds}
    if peer is not None:
        ratios = estimate([[b / a] for a, b in zip(measured["outrider"], measured["peer"], strict=True)])
        result["peer"] = peer.about | _speed(tokens, seconds["peer"])
        result |= {"over_peer": ratios.value, "over_peer_interval": list(ratios.interval)}
    return result


def _speed(tokens: int, seconds: float) -> dict[str, float]:
    return {"seconds": seconds, "tokens_per_second": tokens / seconds}


def show_verify(result: dict[str, Any]) -> None:
    """Prints the cost curve."""
    peer = result.get("peer")
    console = Console(highlight=False)
    console.print(f"{result['model']}, {result['threads']} threads: a pass over M rows, context {result['context']}")
    engines = {"outrider": result} | ({peer["name"]: peer} if peer else {})
    headings = [heading for name in engines for heading in (f"{name} ms", "c(M)/c(1)", "95 %")]
    table = figures_table("M", *headings, "predicted ms")
    for i, rows in enumerate(result["rows"]):
        cells = []
        for of in engines.values():
            interval = "{:.2f}-{:.2f}".format(*of["interval"][i])
            cells += [f"{of['milliseconds'][i]:.2f}", f"{of['ratio'][i]:.2f}", interval]
        off = result["predicted_milliseconds"][i] / result["milliseconds"][i] - 1
        table.add_row(str(rows), *cells, f"{result['predicted_milliseconds'][i]:.2f} ({off:+.0%})")
    console.print(table)
    console.print(
        f"In the same turns: memory {result['read_bytes_per_second'] / 1e9:.1f} GB/s, "
        f"{result['multiply_adds_per_second'] / 1e9:.0f} G multiply-adds/s. A token reads "
        f"{result['bytes_per_token'] / 1e6:.0f} MB: at most {result['limit_tokens_per_second']:.1f} tok/s without "
        "drafting.",
        soft_wrap=True,
    )


def show_prefill(result: dict[str, Any]) -> None:
    """Prints the prefill speed."""
    console = Console(highlight=False)
    for name, of in (("outrider", result), (result.get("peer", {}).get("name"), result.get("peer"))):
        if of:
            speed = f"{of['tokens_per_second']:.0f} tok/s"
            console.print(f"{name}: {result['tokens']} tokens in {of['seconds']:.3f} s, {speed}")
    if "over_peer" in result:
        console.print(
            "{:.2f} times as fast (95 % {:.2f}-{:.2f})".format(result["over_peer"], *result["over_peer_interval"])
        )
