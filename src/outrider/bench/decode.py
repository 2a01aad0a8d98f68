"""What drafting brings: every prompt decoded with it and without it, in turns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from time import perf_counter
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from outrider.bench.figures import Comparison, summarize
from outrider.bench.interleave import turns
from outrider.bench.prompt import Prompt, render
from outrider.terminal import error_console, progress_bar

if TYPE_CHECKING:
    from outrider import LLM, RequestOutput
    from outrider.bench.peer import LlamaCpp


class Comparer:
    """Decodes prompts in every way that is compared, one after the other.

    Args:
        max_tokens: of each answer; an end token ends it sooner, so that what is measured is text that people get.
        temperature: of outrider's answers; the peer decodes greedily, which takes it no longer.
    """

    def __init__(self, llm: LLM, peer: LlamaCpp | None, max_tokens: int, temperature: float = 0.0) -> None:
        from outrider import SamplingParams

        self.llm, self.peer, self.max_tokens, self.temperature = llm, peer, max_tokens, temperature
        self._plain = SamplingParams(max_tokens=max_tokens, temperature=temperature, draft="off")
        self._drafted = SamplingParams(max_tokens=max_tokens, temperature=temperature)
        self.arms: tuple[str, ...] = ("plain", "drafted", *(("peer",) if peer else ()))

    def compare(self, prompt: Prompt, order: Sequence[str]) -> Comparison:
        """One prompt, its arms in the given order."""
        token_ids = render(prompt, self.llm)
        outputs: dict[str, RequestOutput] = {}
        peer_speed = None
        for arm in order:
            if arm != "peer":
                params = self._plain if arm == "plain" else self._drafted
                outputs[arm] = self.llm.generate([token_ids], params)[0]
            elif self.peer is not None:
                peer_speed = self.peer.decode(token_ids, self.max_tokens).tokens_per_second
        return Comparison(prompt, outputs["plain"], outputs["drafted"], peer_speed)

    def converse(self, prompt: Prompt, order: Sequence[str]) -> Iterator[Comparison]:
        """One prompt, then the further turns of its conversation if it has any, after the plain answers."""
        following: Prompt | None = prompt
        while following is not None:
            yield (comparison := self.compare(following, order))
            following = following.answered(comparison.plain.text)


def measure_decode(comparer: Comparer, prompts: Sequence[Prompt], rounds: int) -> dict[str, Any]:
    """Decodes every prompt `rounds` times in each way, and sums up by category.

    Before it starts it says how long it will take, judged by a first prompt that is not counted.
    """
    started = perf_counter()
    comparer.compare(prompts[0], comparer.arms)
    _announce(perf_counter() - started, len(prompts), rounds, comparer.arms)
    comparisons: list[Comparison] = []
    with progress_bar() as progress:
        task = progress.add_task("decoding", total=rounds * len(prompts))
        # The order turns around from prompt to prompt, and from round to round for the same prompt.
        flips = list(turns(comparer.arms, len(prompts) + rounds))
        for number in range(rounds):
            for i, prompt in enumerate(prompts):
                progress.update(task, description=f"decoding ({prompt.category})")
                comparisons.extend(comparer.converse(prompt, flips[i + number]))
                progress.advance(task)
    llm, peer = comparer.llm, comparer.peer
    return summarize(comparisons) | {
        "model": llm.path.name,
        "threads": llm.threads,
        "max_tokens": comparer.max_tokens,
        "temperature": comparer.temperature,
        **({"peer": {"name": "llama.cpp", "version": f"llama-cpp-python {peer.version}"}} if peer else {}),
    }


def _announce(seconds: float, prompts: int, rounds: int, arms: Sequence[str]) -> None:
    estimate = max(seconds * prompts * rounds, 1.0)
    duration = f"{estimate:.0f} seconds" if estimate < 90 else f"{estimate / 60:.0f} minutes"
    error_console().print(
        f"{prompts} prompts, each decoded {rounds} times in {len(arms)} ways ({', '.join(arms)}): about {duration}.",
        style="dim",
    )


def show_decode(result: dict[str, Any]) -> None:
    """The figures for a person: what drafting brings, then where the time goes and who guessed right."""
    sources = ", ".join(result["draft_sources"]) or "nothing that was worth drafting"
    peer = result.get("peer")
    console = Console(highlight=False)
    console.print(f"{result['model']}, {result['threads']} threads, drafts from {sources}, tok/s")
    names = ("plain", "drafts", "speed-up", "from", "to", "per pass", "accepted", *([peer["name"]] if peer else []))
    table = _table(*names)
    table.add_column("same", no_wrap=True)
    for category, of in _rows(result, table):
        table.add_row(
            category,
            f"{of['plain_tokens_per_second']:.1f}",
            f"{of['mtp_tokens_per_second']:.1f}",
            f"{of['speedup']:.2f}",
            *(f"{end:.2f}" for end in of["speedup_range"]),
            f"{of['tokens_per_pass']:.2f}",
            f"{of['acceptance_rate']:.0%}",
            *([f"{of['peer_tokens_per_second']:.1f}"] if peer else []),
            "yes" if of["identical"] else "[red]no[/red]",
        )
    console.print(table)
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
    """Every category's figures, then, below a line, those of all."""
    yield from result["categories"].items()
    table.add_section()
    yield "all", result["total"]


def _share(of: dict[str, int] | None) -> str:
    return f"{of['accepted'] / of['drafted']:.0%}" if of else "-"
