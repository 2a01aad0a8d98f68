"""The part of `outrider plan` about many clients: how many machines serve them, and for what price."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from outrider.console import figures_table

if TYPE_CHECKING:
    from rich.console import Console

    from outrider.roofline.clients import Clients, Replica, Served
    from outrider.roofline.speedup import Plan

_MOST = 1 << 16
"""Clients of a replica, and replicas, beyond which nothing is looked for."""


@dataclass(frozen=True)
class Wanted:
    """What is asked.

    Args:
        clients: None for as many as the replicas serve.
        replicas: None for as many as the clients need.
        running: most requests of a replica at once.
        price: of a replica's machine, for an hour.
        first_token: seconds in which 99 of 100 first tokens shall come.
        next_token: seconds in which 99 of 100 further ones shall.
    """

    each: Clients
    clients: int | None
    replicas: int | None
    running: int
    price: float | None
    first_token: float
    next_token: float

    def met(self, served: Served) -> bool:
        """Whether tokens come in time."""
        return served.first_token.most <= self.first_token and served.next_token.most <= self.next_token


def describe_clients(plan: Plan, acceptance: float, wanted: Wanted) -> dict[str, Any]:
    """The prediction as plain data, without drafting and with it."""
    from outrider.roofline.clients import Replica

    replicas = {
        name: Replica(plan, wanted.each, wanted.running, rate)
        for name, rate in (("plain", None), ("drafting", acceptance))
    }
    return asdict(wanted) | {name: _described(replica, wanted) for name, replica in replicas.items()}


def _described(replica: Replica, wanted: Wanted) -> dict[str, Any]:
    clients, replicas = _found(replica, wanted)
    served = replica.served(max(clients / replicas, 1.0))
    tokens_per_second = served.tokens_per_second * min(replicas, clients)
    found = {"clients": clients, "replicas": replicas, "in_time": wanted.met(served), "served": asdict(served)}
    found |= {"tokens_per_second": tokens_per_second, "price_per_million": None}
    if wanted.price is not None:
        found["price_per_million"] = replicas * wanted.price / (tokens_per_second * 3600) * 1e6
    return found


def _found(replica: Replica, wanted: Wanted) -> tuple[int, int]:
    """Clients and replicas: the least replicas or the most clients that meet what is wanted; 1 for one if none do."""
    if wanted.clients and wanted.replicas:
        return wanted.clients, wanted.replicas
    if not wanted.met(replica.served(1)):
        return (wanted.clients or 1), (wanted.replicas or wanted.clients or 1)
    if wanted.replicas:
        each = _last(lambda clients: wanted.met(replica.served(clients)))
        return each * wanted.replicas, wanted.replicas
    assert wanted.clients is not None
    clients = wanted.clients
    short = _last(lambda replicas: replicas < clients and not wanted.met(replica.served(clients / replicas)))
    return clients, short + 1


def _last(holds: Callable[[int], bool]) -> int:
    """The last whole number up to which `holds`, 0 if it does not at 1."""
    low, high = 0, 1
    while high < _MOST and holds(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


def show_clients(console: Console, found: dict[str, Any]) -> None:
    """A table, and what it means in a sentence."""
    each = found["each"]
    console.print(
        f"Each client sends {each['prompt']} tokens that no cache has, gets {each['answer']} and pauses for "
        f"{each['pause']:g} s; a replica runs {found['running']} requests at once. Seconds to the first token, and to "
        "each next one, of half and of 99 in 100:"
    )
    names = ("clients", "replicas", "load", "first", "99%", "next", "99%", "tok/s")
    table = figures_table("", *names, *(["price, 1M"] if found["price"] is not None else []))
    for name, row in (("plain", found["plain"]), ("drafting", found["drafting"])):
        served = row["served"]
        cells = [f"{row['clients']:,}", f"{row['replicas']:,}", f"{served['load']:.0%}"]
        cells += [f"{seconds:.2f}" for seconds in served["first_token"].values()]
        cells += [f"{seconds:.3f}" for seconds in served["next_token"].values()]
        cells += [f"{row['tokens_per_second']:,.0f}"]
        cells += [] if row["price_per_million"] is None else [f"{row['price_per_million']:.2f}"]
        table.add_row(name, *cells)
    console.print(table)
    console.print(clients_verdict(found), style="bold")


def clients_verdict(found: dict[str, Any]) -> str:
    """Whether what is wanted is met, by how many."""
    limits = f"99% of first tokens within {found['first_token']:g} s, of others within {found['next_token']:g} s"
    said = []
    for name, row in (("plain", found["plain"]), ("with drafting", found["drafting"])):
        serve = "enough" if row["in_time"] else "too few" if row["replicas"] < row["clients"] else "too slow"
        said.append(f"{name}, {_counted(row['replicas'], 'replica')} for {_counted(row['clients'], 'client')}: {serve}")
    return f"{limits}: {'; '.join(said)}."


def _counted(number: int, name: str) -> str:
    return f"{number:,} {name}{'' if number == 1 else 's'}"
