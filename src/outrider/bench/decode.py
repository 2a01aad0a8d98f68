"""What drafting brings: every prompt decoded with it and without it, in turns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from outrider.bench.interleave import turns
from outrider.bench.suite import Prompt
from outrider.terminal import error_console, progress_bar

if TYPE_CHECKING:
    from outrider import LLM, RequestOutput
    from outrider.bench.peer import LlamaCpp
    from outrider.engine.outputs import RequestStats


@dataclass(frozen=True)
class Comparison:
    """One prompt, decoded without drafts, with them, and by the peer, close together in time."""

    prompt: Prompt
    plain: RequestOutput
    drafted: RequestOutput
    peer_tokens_per_second: float | None

    @property
    def speedup(self) -> float:
        """Drafted over plain decode speed."""
        plain = self.plain.stats.decode_tokens_per_second
        return self.drafted.stats.decode_tokens_per_second / plain if plain else 1.0

    @property
    def identical(self) -> bool:
        """Whether drafting changed nothing but the time."""
        return (self.plain.token_ids, self.plain.finish_reason) == (self.drafted.token_ids, self.drafted.finish_reason)


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
        outputs: dict[str, RequestOutput] = {}
        peer_speed = None
        for arm in order:
            if arm != "peer":
                params = self._plain if arm == "plain" else self._drafted
                outputs[arm] = self.llm.generate(prompt.text, params)[0]
            elif self.peer is not None:
                token_ids = self.llm.tokenizer.encode(prompt.text)
                peer_speed = self.peer.decode(token_ids, self.max_tokens).tokens_per_second
        return Comparison(prompt, outputs["plain"], outputs["drafted"], peer_speed)


def measure_decode(comparer: Comparer, prompts: Sequence[Prompt], rounds: int) -> dict[str, Any]:
    """Decodes every prompt `rounds` times in each way, and sums up by category.

    Before it starts it says how long it will take, judged by a first prompt that is not counted.
    """
    started = perf_counter()
    comparer.compare(prompts[0], comparer.arms)
    _announce(perf_counter() - started, len(prompts), rounds, comparer.arms)
    comparisons = []
    with progress_bar() as progress:
        task = progress.add_task("decoding", total=rounds * len(prompts))
        # The order turns around from prompt to prompt, and from round to round for the same prompt.
        flips = list(turns(comparer.arms, len(prompts) + rounds))
        for number in range(rounds):
            for i, prompt in enumerate(prompts):
                progress.update(task, description=f"decoding ({prompt.category})")
                comparisons.append(comparer.compare(prompt, flips[i + number]))
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


def summarize(comparisons: Sequence[Comparison]) -> dict[str, Any]:
    """The figures of each category and of all together."""
    by_category: dict[str, list[Comparison]] = {}
    for comparison in comparisons:
        by_category.setdefault(comparison.prompt.category, []).append(comparison)
    sources: Counter[str] = Counter()
    for comparison in comparisons:
        sources.update(comparison.drafted.stats.drafted_by_source)
    return {
        "draft_sources": sorted(+sources),
        "categories": {category: _figures(of_category) for category, of_category in by_category.items()},
        "total": _figures(comparisons),
    }


def _figures(comparisons: Sequence[Comparison]) -> dict[str, Any]:
    """Speeds are medians over prompts, the speed-up the median of the pairs' own; the counts are added up."""
    stats = [comparison.drafted.stats for comparison in comparisons]
    passes, drafted = sum(s.target_passes for s in stats), sum(s.drafted for s in stats)
    speedups = [comparison.speedup for comparison in comparisons]
    figures: dict[str, Any] = {
        "prompts": len({comparison.prompt for comparison in comparisons}),
        "plain_tokens_per_second": median(c.plain.stats.decode_tokens_per_second for c in comparisons),
        "mtp_tokens_per_second": median(s.decode_tokens_per_second for s in stats),
        "speedup": median(speedups),
        "speedup_range": [min(speedups), max(speedups)],
        "tokens_per_pass": sum(s.decoded_tokens for s in stats) / passes if passes else 1.0,
        "acceptance_rate": sum(s.accepted for s in stats) / drafted if drafted else 0.0,
        "acceptance_by_depth": _by_depth(stats),
        "identical": all(comparison.identical for comparison in comparisons),
    }
    peer_speeds = [c.peer_tokens_per_second for c in comparisons if c.peer_tokens_per_second is not None]
    if peer_speeds:
        figures["peer_tokens_per_second"] = median(peer_speeds)
    return figures


def _by_depth(stats: Sequence[RequestStats]) -> list[float]:
    """Of the drafted tokens at each depth, how many were accepted."""
    drafted, accepted = Counter[int](), Counter[int]()
    for of in stats:
        drafted.update(dict(enumerate(of.drafted_by_depth)))
        accepted.update(dict(enumerate(of.accepted_by_depth)))
    return [accepted[depth] / drafted[depth] if drafted[depth] else 0.0 for depth in sorted(drafted)]


def show_decode(result: dict[str, Any]) -> None:
    """The figures for a person."""
    sources = ", ".join(result["draft_sources"]) or "nothing that was worth drafting"
    peer = result.get("peer")
    console = Console(highlight=False)
    console.print(f"{result['model']}, {result['threads']} threads, drafts from {sources}, tok/s")
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    table.add_column("category", no_wrap=True)
    names = ("plain", "drafts", "speed-up", "per pass", "accepted", *([peer["name"]] if peer else []))
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("same", no_wrap=True)
    for category, of in (*result["categories"].items(), ("all", result["total"])):
        if category == "all":
            table.add_section()
        table.add_row(
            category,
            f"{of['plain_tokens_per_second']:.1f}",
            f"{of['mtp_tokens_per_second']:.1f}",
            f"{of['speedup']:.2f}",
            f"{of['tokens_per_pass']:.2f}",
            f"{of['acceptance_rate']:.0%}",
            *([f"{of['peer_tokens_per_second']:.1f}"] if peer else []),
            "yes" if of["identical"] else "[red]no[/red]",
        )
    console.print(table)
