"""What drafting brings: every prompt decoded with it and without it, in turns."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from outrider.bench.comparer import Comparer
from outrider.bench.comparison import Comparison
from outrider.bench.figures import summarize
from outrider.bench.interleave import turns
from outrider.bench.pace import Lengths, Pace, measure_pace
from outrider.bench.pass_costs import PassCosts
from outrider.bench.prompt import Prompt
from outrider.bench.usual_pace import changes_of_pace
from outrider.console import error_console, progress_bar


def measure_decode(
    comparer: Comparer, prompts: Sequence[Prompt], lengths: Sequence[Lengths], rounds: int | None
) -> dict[str, Any]:
    """Decodes every prompt `rounds` times in each way, and sums up by category.

    Before it starts it says how long it will take, judged by a few prompts that are not counted.

    Args:
        lengths: the prompts', as `turn_lengths` finds them.
        rounds: None for as many as fit into some minutes.
    """
    pace = measure_pace(comparer, prompts, lengths, rounds or 1)
    rounds = rounds or pace.fitting_rounds(lengths)
    _announce(pace, prompts, lengths, rounds, comparer.arms)
    compared: list[tuple[int, Comparison]] = []
    with progress_bar() as progress:
        task = progress.add_task("decoding", total=pace.rounds_seconds(lengths, rounds))
        # The order turns around from prompt to prompt, and from round to round for the same prompt.
        flips = list(turns(comparer.arms, len(prompts) + rounds))
        for number in range(rounds):
            cached = number > 0  # the time to the first token is known then, and long prompts would take most of all
            # Shuffled, or a machine that is slow for some seconds would be so for one category.
            for i in random.Random(number).sample(range(len(prompts)), len(prompts)):
                progress.update(task, description=f"decoding ({escape(prompts[i].category)})")
                conversation = comparer.converse(prompts[i], flips[i + number], cache_prompt=cached)
                compared.extend((i, comparison) for comparison in conversation)
                progress.advance(task, pace.seconds(lengths[i], cached=cached))
    llm, peer = comparer.llm, comparer.peer
    costs = PassCosts([comparison for _, comparison in compared])
    return summarize([comparison for _, comparison in sorted(compared, key=lambda of: of[0])], costs) | {
        "model": llm.path.name,
        "threads": llm.threads,
        "rounds": rounds,
        "pairs": [{"prompt": i, **_pair(comparison, costs)} for i, comparison in compared],
        **{name: getattr(comparer.sampling, name) for name in ("max_tokens", "temperature", "top_k", "top_p")},
        **({"peer": {"name": "llama.cpp", "version": f"llama-cpp-python {peer.version}"}} if peer else {}),
    }


def _pair(of: Comparison, costs: PassCosts) -> dict[str, Any]:
    """What `--json` says of a comparison: its speeds as timed, and at the machine's usual pace."""
    plain, drafted = of.plain.stats, of.drafted.stats
    return {
        "category": of.prompt.category,
        "gauge_seconds": dict(of.gauges),
        "as_timed": {"plain": plain.decode_tokens_per_second, "mtp": drafted.decode_tokens_per_second},
        "at_usual_pace": {
            "plain": costs.tokens_per_second(plain, drafted=False),
            "mtp": costs.tokens_per_second(drafted, drafted=True),
        },
    }


def _announce(
    pace: Pace, prompts: Sequence[Prompt], lengths: Sequence[Lengths], rounds: int, arms: Sequence[str]
) -> None:
    estimate = max(pace.rounds_seconds(lengths, rounds), 1.0)
    duration = _count(round(estimate), "second") if estimate < 90 else _count(round(estimate / 60), "minute")
    categories, answers = len({prompt.category for prompt in prompts}), sum(map(len, lengths))
    what = f"{_count(len(prompts), 'prompt')} of {_count(categories, 'category', 'categories')}"
    if answers > len(prompts):
        what += f" with {_count(answers, 'turn')}"
    error_console().print(
        f"{what}, each decoded {_count(rounds, 'time')} in {len(arms)} ways ({', '.join(arms)}): about {duration}.",
        style="dim",
    )


def _count(number: int, one: str, more: str | None = None) -> str:
    return f"{number} {one if number == 1 else more or one + 's'}"


def show_decode(result: dict[str, Any]) -> None:
    """The figures for a person: what drafting brings, then where the time goes and who guessed right."""
    sources = ", ".join(result["draft_sources"]) or "nothing that was worth drafting"
    peer = result.get("peer")
    console = Console(highlight=False)
    suite = f"{escape(result['suite'])} in {result['form']} form"
    console.print(
        f"{result['model']}, {result['threads']} threads, {suite}, drafts from {sources}, tok/s", soft_wrap=True
    )
    ends = () if peer else ("from", "to")  # with a peer beside it, no room for these in 80 columns
    names = ("plain", "drafts", "speed-up", *ends, "per pass", "accepted", *([peer["name"]] if peer else []))
    table = _table(*names)
    table.add_column("same", no_wrap=True)
    for category, of in _rows(result, table):
        table.add_row(
            category,
            f"{of['plain_tokens_per_second']:.1f}",
            f"{of['mtp_tokens_per_second']:.1f}",
            f"{of['speedup']:.2f}",
            *(f"{end:.2f}" for _, end in zip(ends, of["speedup_range"], strict=False)),
            f"{of['tokens_per_pass']:.2f}",
            f"{of['acceptance_rate']:.0%}",
            *([f"{of['peer_tokens_per_second']:.1f}"] if peer else []),
            "yes" if of["identical"] else "[red]no[/red]",
        )
    console.print(table)
    if (error := result["total"]["speedup_error"]) is not None:
        category, largest = max(
            (
                (name, of["speedup_error"])
                for name, of in result["categories"].items()
                if of["speedup_error"] is not None
            ),
            key=lambda named: named[1],
        )
        console.print(
            f"Measured again, the speed-up of all will differ by some {error:.1%}, that of a category by up to "
            f"{largest:.1%} ({escape(category)}; standard errors, from how much the rounds differ)."
        )
    console.print(
        f"Passes are counted at what they took at the machine's usual pace, that of {result['usual_pace_share']:.0%} "
        f"of the time; as timed, the speed-up of all was {result['total']['speedup_as_timed']:.2f}."
    )
    if changes := changes_of_pace(result):
        console.print(f"{changes} What drafts bring changes with it.")
    console.print(
        "With drafts: time to the first token; where the time of decoding goes; accepted of drafted, by source"
    )
    by_source = result["draft_sources"]
    table = _table("first token", "plain's", "draft", "verify", "rest", *by_source)
    for category, of in _rows(result, table):
        split, first = of["time_split"], of["first_token_seconds"]
        table.add_row(
            category,
            *(f"{1000 * first[arm]:.0f} ms" for arm in ("mtp", "plain")),
            *(f"{split[part]:.0%}" for part in ("draft", "verify", "rest")),
            *(_share(of["by_source"].get(source)) for source in by_source),
        )
    console.print(table)


def _table(*names: str) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    table.add_column("category", no_wrap=True)
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _rows(result: dict[str, Any], table: Table) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every category's figures, then, below a line, those of categories together and of all."""
    for category, of in result["categories"].items():
        yield escape(category), of
    table.add_section()
    yield from result["groups"].items()
    yield "all", result["total"]


def _share(of: dict[str, int] | None) -> str:
    return f"{of['accepted'] / of['drafted']:.0%}" if of else "-"
