"""`outrider bench decode`: every prompt without drafting and with it, in pairs, until a time budget is spent."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import count
from time import monotonic
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from outrider.bench.figures import summarize
from outrider.bench.pairs import Pair, PairDecoder
from outrider.bench.prompt import Prompt
from outrider.console import figures_table, progress_bar


def measure_decode(decoder: PairDecoder, prompts: Sequence[Prompt], seconds: float) -> dict[str, Any]:
    """Decodes every prompt at least once in all arms, again until the time is spent, and sums up by category."""
    with progress_bar() as progress:
        task = progress.add_task("decoding", total=1.0)

        def advance(done: float, what: str) -> None:
            progress.update(task, completed=done, description=what)

        shortest = min(prompts, key=lambda prompt: len(prompt.text) + sum(len(of.content) for of in prompt.messages))
        decoder.decode(shortest, decoder.arms)  # not counted: the first answer finds cold caches
        numbered = list(rounds(decoder, prompts, seconds, advance))
    llm, peer, sampling = decoder.llm, decoder.peer, decoder.sampling
    return summarize([pair for _, pair in sorted(numbered, key=lambda of: of[0])]) | {
        "model": llm.path.name,
        "threads": llm.parts.threads,
        "pairs": [_described(number, pair) for number, pair in numbered],
        **{name: getattr(sampling, name) for name in ("max_tokens", "temperature", "top_k", "top_p")},
        **({"peer": peer.about} if peer else {}),
    }


def rounds(
    decoder: PairDecoder,
    prompts: Sequence[Prompt],
    seconds: float,
    advance: Callable[[float, str], None],
    clock: Callable[[], float] = monotonic,
) -> Iterator[tuple[int, Pair]]:
    """Pairs with the numbers of their prompts: one whole round over the prompts, then more until the time is spent.

    Each round has an order of its own, so that a slow period of the machine does not affect one category alone. The
    order of the arms alternates from prompt to prompt, and from round to round for the same prompt.

    Args:
        advance: called before each prompt with the share that is done and a description. The share is that of the time;
            in the first round that of its prompts, if it is smaller.
    """
    started, total = clock(), len(prompts)
    for round_number in count():
        for done, i in enumerate(random.Random(round_number).sample(range(total), total)):
            spent = (clock() - started) / seconds if seconds else 1.0
            if round_number and spent >= 1:
                return
            share = spent if round_number else min(spent, done / total)
            category = escape(prompts[i].category)
            advance(share, f"round {round_number + 1}, prompt {done + 1} of {total} ({category})")
            order = decoder.arms if (i + round_number) % 2 == 0 else decoder.arms[::-1]
            for pair in decoder.converse(prompts[i], order):
                yield i, pair


def _described(number: int, pair: Pair) -> dict[str, Any]:
    """A pair in `--json`: tokens per second as timed."""
    described: dict[str, Any] = {"prompt": number, "category": pair.prompt.category}
    described |= {"plain": pair.plain_tokens_per_second, "mtp": pair.mtp_tokens_per_second}
    return described if pair.peer_tokens_per_second is None else described | {"peer": pair.peer_tokens_per_second}


def show_decode(result: dict[str, Any]) -> None:
    """Prints the speeds and the speed-up by category, then where the time goes."""
    console, peer = Console(highlight=False, soft_wrap=True), result.get("peer", {})
    sources = ", ".join(result["draft_sources"]) or "no source (nothing was drafted)"
    console.print(
        f"{result['model']}, {result['threads']} threads, prompts: {escape(result['suite'])}, "
        f"{result['prompt_format']} format, drafts from {sources}"
    )
    names = ("plain\ntok/s", "drafting\ntok/s", "speed-up", "95 %", "tokens\nper pass", "accepted", "same")
    table = figures_table("category", *names, *([f"{peer['name']} tok/s"] if peer else []))
    for category, of in _rows(result, table):
        table.add_row(
            category,
            f"{of['plain_tokens_per_second']:.1f}",
            f"{of['mtp_tokens_per_second']:.1f}",
            f"{of['speedup']:.2f}",
            "{:.2f}-{:.2f}".format(*of["interval"]),
            f"{of['tokens_per_pass']:.2f}",
            f"{of['acceptance_rate']:.0%}",
            "yes" if of["identical"] else "[red]no[/red]",
            *([f"{of['peer_tokens_per_second']:.1f}"] if "peer_tokens_per_second" in of else []),
        )
    console.print(table, soft_wrap=False)
    total = result["total"]
    console.print(
        f"Speed-up: geometric mean of {total['pairs']} interleaved pairs over {total['prompts']} prompts, with a "
        f"bootstrap 95 % interval{caveat(result)}."
    )
    if "over_peer" in total:
        console.print(f"Against {peer['name']}: {total['over_peer']:.2f} times as fast with drafting.")
    by_source = result["draft_sources"]
    table = figures_table(
        "category", "first token", "drafting", "verifying", "rest", *(f"{name} accepted" for name in by_source)
    )
    for category, of in _rows(result, table):
        table.add_row(
            category,
            f"{1000 * of['first_token_seconds']['mtp']:.0f} ms",
            *(f"{of['time_split'][part]:.0%}" for part in ("draft", "verify", "rest")),
            *(_share(of["by_source"].get(source)) for source in by_source),
        )
    console.print(table, soft_wrap=False)


def caveat(result: Mapping[str, Any]) -> str:
    """What makes a speed-up higher than elsewhere, as the end of a sentence; nothing if that is not so."""
    if result["prompt_format"] != "base" or result["temperature"]:
        return ""
    return "; greedily continued texts soon repeat themselves, which is what drafts predict best"


def _rows(result: dict[str, Any], table: Table) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every category's figures, then, below a line, those of all."""
    for category, of in result["categories"].items():
        yield escape(category), of
    table.add_section()
    yield "all", result["total"]


def _share(of: dict[str, int] | None) -> str:
    return f"{of['accepted'] / of['drafted']:.0%}" if of and of["drafted"] else "-"
