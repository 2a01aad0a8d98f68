"""A plan for a person: figures in tables, and what they mean in a sentence."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from outrider.cli.plan_clients import show_clients
from outrider.console import figures_table


def show_plan(plan: dict[str, Any]) -> None:
    """Everything that was predicted, the verdict last."""
    console = Console(highlight=False)
    on = plan["hardware"]
    console.print(f"{plan['model']}: drafts from {plan['drafted_by']}", markup=False)
    memory, arithmetic = on["bytes_per_second"] / 1e9, on["multiply_adds_per_second"] / 1e9
    console.print(f"{on['name']}: memory {memory:,.0f} GB/s, {arithmetic:,.0f} G multiply-adds/s")
    console.print(
        f"A token reads {plan['bytes_per_token'] / 1e9:.2f} GB of weights: {plan['plain_tokens_per_second']:.1f} tok/s "
        f"without drafting, and {plan['step_seconds'] * 1000:.2f} ms for each drafted token. Context {plan['context']}."
    )
    _show_cost(console, plan)
    _show_acceptance(console, plan)
    _show_requests(console, plan)
    console.print(verdict(plan), style="bold")
    if not plan["has_drafter"]:
        console.print(
            "Lookup reaches that rate only where a text repeats itself. outrider train-drafter makes a drafter."
        )
    if "clients" in plan:
        show_clients(console, plan["clients"])


def verdict(plan: dict[str, Any]) -> str:
    """Whether MTP pays, from which acceptance rate on, and at which loads."""
    source = "MTP" if plan["has_drafter"] else "Lookup (there is no MTP drafter)"
    rate, paying = f"at an acceptance rate of {plan['acceptance']:.0%}", plan["worthwhile_requests"]
    if not paying:
        return f"{source} does not pay here: {rate} it gains less than 5 % at any load."
    alone, others = (
        plan["by_requests"][0],
        [of["requests"] for of in plan["by_requests"] if of["requests"] not in paying],
    )
    gain = f"drafts of {alone['drafted']} make it {alone['speedup']:.1f} times as fast"
    least = "any rate" if plan["least_acceptance"] is None else f"a rate below {plan['least_acceptance']:.0%}"
    one = (
        f"pays: for one request, {rate}, {gain}"
        if alone["requests"] in paying
        else f"does not pay for one request {rate}"
    )
    load = f", not at {_listed(others)}" if others else ", every load tried"
    return f"{source} {one} (at {least} it does not). It pays at {_listed(paying)} requests at once{load}."


def _listed(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers))


def _show_cost(console: Console, plan: dict[str, Any]) -> None:
    table = figures_table("rows of a pass", *(str(rows) for rows in plan["rows"]))
    table.add_row("ms", *(f"{of:.2f}" for of in plan["milliseconds"]))
    table.add_row("c(M)/c(1)", *(f"{of:.2f}" for of in plan["ratio"]))
    console.print(table)
    rows = plan["arithmetic_bound_from_rows"]
    console.print(
        "Arithmetic bounds every pass."
        if rows == 1
        else f"Memory bounds a pass up to {rows - 1} rows, arithmetic beyond."
    )


def _show_acceptance(console: Console, plan: dict[str, Any]) -> None:
    table = figures_table("speed-up, acceptance", *(str(k) for k in plan["drafted"]), "best", "with")
    for of in plan["by_acceptance"]:
        best = max(of["speedup"])
        cells = [f"[bold]{s:.2f}[/bold]" if s == best and s > 1 else f"{s:.2f}" for s in of["speedup"]]
        table.add_row(f"{of['acceptance']:.0%}", *cells, f"{of['best_speedup']:.2f}", f"{of['best_drafted']}")
    console.print(table)


def _show_requests(console: Console, plan: dict[str, Any]) -> None:
    first = f"requests at once, {plan['acceptance']:.0%} accepted"
    table = figures_table(first, "drafted", "speed-up", "tok/s plain", "with drafting")
    for of in plan["by_requests"]:
        speeds = (f"{of[name]:,.1f}" for name in ("plain_tokens_per_second", "mtp_tokens_per_second"))
        table.add_row(f"{of['requests']}", f"{of['drafted']}", f"{of['speedup']:.2f}", *speeds)
    console.print(table)
