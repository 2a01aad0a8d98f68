"""The figures of `outrider bench endpoint` as a table."""

from __future__ import annotations

from collections import Counter
from typing import Any

from rich.console import Console
from rich.markup import escape

from outrider.console import figures_table

_COLUMNS = ("tok/s", "TTFT ms", "p95", "TPOT ms", "p95", "accepted", "tokens/pass", "failed")
"""TTFT: time to first token; TPOT: time per output token after it; medians and 95th percentiles."""

_SHARED_SERVER = (
    "both arms use one server: its prefix cache and its texts to draft from help whichever arm comes second, A and B "
    "half of the time each; use two servers, as URL and URL2, to separate them"
)


def show_endpoint(result: dict[str, Any]) -> None:
    """Prints one row for each arm at each level, their ratio below them, and whether the texts are equal."""
    console = Console(highlight=False)
    for arm in result["arms"]:
        extra = f", {arm['extra']}" if arm["extra"] else ""
        console.print(f"{arm['name']}: {arm['model']} at {arm['address']}{extra}", markup=False, soft_wrap=True)
    table = figures_table("clients", "", *_COLUMNS)
    for level in result["levels"]:
        for name, figures in level["arms"].items():
            table.add_row(str(level["clients"]), name, *_cells(figures))
        if "ratios" in level:
            throughput, first, each = (_or_dash(of, "{:.2f}x") for of in level["ratios"].values())
            table.add_row("", "B/A", throughput, first, "", each)
            table.add_section()
    console.print(table)
    for note in _notes(result):
        console.print(note, soft_wrap=True)


def _cells(figures: dict[str, Any]) -> list[str]:
    first, each = figures["time_to_first_token_seconds"], figures["time_per_output_token_seconds"]
    draft, failed = figures["drafting"] or {}, sum(figures["failures"].values())
    return [
        f"{figures['tokens_per_second']:.1f}",
        *(_or_dash(of[name], "{:.1f}", 1000) for of in (first, each) for name in ("median", "p95")),
        _or_dash(draft.get("acceptance_rate"), "{:.0%}"),
        _or_dash(draft.get("tokens_per_pass"), "{:.2f}"),
        f"[red]{failed}[/red]" if failed else "-",
    ]


def _or_dash(value: float | None, form: str, scale: float = 1) -> str:
    return "-" if value is None else form.format(scale * value)


def _notes(result: dict[str, Any]) -> list[str]:
    """What the table does not show."""
    notes = []
    for arm in result["arms"]:
        figures = [level["arms"][arm["name"]] for level in result["levels"]]
        failures = sum((Counter(of["failures"]) for of in figures), Counter[str]())
        if failures:
            kinds = ", ".join(f"{count} {kind}" for kind, count in failures.items())
            notes.append(f"{arm['name']}: failed and not counted: [red]{kinds}[/red]")
        if any("chunks" in (of["tokens_counted_by"] or "") for of in figures):
            notes.append(f"{arm['name']}: the server does not count its tokens: these are chunks with text")
        sources = sorted({of["drafting"]["source"] for of in figures if of["drafting"]})
        if sources:
            notes.append(f"{arm['name']}: accepted drafts and tokens per pass as {' and '.join(sources)} counts them")
    if result["shared_server"]:
        notes.append(_SHARED_SERVER)
    texts = [(level["clients"], level["texts"]) for level in result["levels"] if level.get("texts")]
    if texts:
        notes.append(
            "equal texts: {} of {}".format(*(sum(of[name] for _, of in texts) for name in ("equal", "compared")))
        )
        differing = [(clients, of["first_difference"]) for clients, of in texts if of["first_difference"]]
        if differing:
            clients, of = differing[0]
            notes.append(
                f"[yellow]first difference[/yellow]: {clients} clients, request {of['number']}, "
                f"character {of['position']}: A {escape(repr(of['first']))}, B {escape(repr(of['second']))}"
            )
    elif len(result["arms"]) > 1:
        notes.append("texts not compared: only greedy answers (temperature 0) have to be equal")
    return notes
