"""The figures of an endpoint for a person."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table


def show_endpoint(result: Mapping[str, Any]) -> None:
    """A row for each number of clients and arm; then failures, counting, and whether the texts are the same."""
    console = Console(highlight=False, soft_wrap=True)
    arms = result["arms"]
    for name, arm in zip("AB", arms, strict=False):
        extra = f", {arm['extra']}" if arm["extra"] else ""
        console.print(f"{name}: {arm['url']}, {arm['model']}{extra}", markup=False)
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    names = ("clients", "", "tok/s", *(["A / B"] if len(arms) == 2 else []), "first token", "p95", "each token", "p95")
    for name in (*names, "accepted", "failed"):
        table.add_column(name, justify="right" if name else "left", no_wrap=True)
    for level in result["levels"]:
        ratio = _ratio(level["arms"])
        for number, of in enumerate(level["arms"]):
            table.add_row(
                str(level["clients"]) if number == 0 else "",
                "AB"[number],
                f"{of['tokens_per_second']:.1f}",
                *([ratio if number == 0 else ""] if len(arms) == 2 else []),
                *_times(of["first_token_seconds"]),
                *_times(of["seconds_per_token"]),
                _accepted(of["drafting"]),
                str(sum(of["failures"].values()) or "-"),
                end_section=number == len(arms) - 1 and len(arms) == 2,
            )
    console.print(table)
    _show_doubts(console, result)


def _show_doubts(console: Console, result: Mapping[str, Any]) -> None:
    failures: Counter[str] = Counter()
    for level in result["levels"]:
        for of in level["arms"]:
            failures.update(of["failures"])
    for failure, times in failures.most_common():
        console.print(f"failed {times} times: {failure}", style="red", markup=False)
    if not all(of["tokens_counted_by_server"] for level in result["levels"] for of in level["arms"]):
        console.print("Where a server does not say how many tokens it sent, each piece of its stream counts as one.")
    texts = result.get("texts")
    if texts is None:
        return
    if texts["same"] == texts["compared"]:
        console.print(f"The texts of all {texts['compared']} prompts are the same.")
        return
    console.print(f"The texts of {texts['compared'] - texts['same']} of {texts['compared']} prompts differ. The first:")
    for name, text in zip("AB", texts["first_difference"]["texts"], strict=True):
        console.print(f"  {name}: {text[:200]!r}", markup=False)


def _ratio(arms: list[Mapping[str, Any]]) -> str:
    if len(arms) < 2 or not arms[1]["tokens_per_second"]:
        return "-"
    return f"{arms[0]['tokens_per_second'] / arms[1]['tokens_per_second']:.2f}"


def _times(of: Mapping[str, float] | None) -> tuple[str, str]:
    return (f"{1000 * of['median']:.0f} ms", f"{1000 * of['p95']:.0f} ms") if of else ("-", "-")


def _accepted(drafting: Mapping[str, Any] | None) -> str:
    rate = (drafting or {}).get("acceptance_rate")
    return "-" if rate is None else f"{rate:.0%}"
