"""How far the same benchmark, run again, gives the same speed-ups.

usage: python -m benchmarks.repeatability MODEL [--runs 3] [OPTIONS OF outrider bench decode ...]

Runs `outrider bench decode MODEL --json` so many times, each in a process of its own, and prints each category's
speed-up in each run, with the largest deviation from their median. Nothing else may run beside it.

Where the machine changes its pace for minutes (a virtual one that its host moves about, a laptop that gets warm), what
drafts bring changes with it, and one run finds it faster than another. So the last column compares them at the same
pace: how the speed-up follows the pace is fitted over all pairs of all runs (one slope, each prompt with a level of its
own), and taken off. The pace at a pair is that of plain decoding in its neighbours, not in the pair itself: its own
speed-up would follow from an error in that.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import Sequence
from statistics import geometric_mean, median
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from outrider.bench.figures import centre

_NEIGHBOURS = 4
"""Pairs before and after one that tell how fast the machine was: a few seconds, where its states last longer."""


def run(model: str, options: list[str]) -> dict[str, Any]:
    """One run's figures. Its words go where this program's go, and if it fails, so does this program."""
    program = "from outrider.cli import main; main()"
    command = [sys.executable, "-c", program, "bench", "decode", model, "--json", *options]
    ran = subprocess.run(command, check=False, stdout=subprocess.PIPE)
    if ran.returncode:
        sys.exit(ran.returncode)
    found: dict[str, Any] = json.loads(ran.stdout)
    print({name: round(of["speedup"], 2) for name, of in found["categories"].items()}, file=sys.stderr)
    return found


def deviation(speedups: Sequence[float]) -> float:
    """The largest distance from the median, as a share of it."""
    middle = median(speedups)
    return max(abs(speedup / middle - 1) for speedup in speedups)


def _about_prompts(values: NDArray[np.float64], prompts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Each value less the mean of its prompt's."""
    return values - (np.bincount(prompts, values) / np.maximum(np.bincount(prompts), 1))[prompts]


def paces(runs: Sequence[Sequence[dict[str, Any]]]) -> list[NDArray[np.float64]]:
    """By run, and in it by pair: the log of how fast plain decoding was around it, 0 for the mean of all."""
    prompts = np.array([pair["prompt"] for pairs in runs for pair in pairs])
    speeds = np.log([pair["plain_tokens_per_second"] for pairs in runs for pair in pairs])
    ends = np.cumsum([len(pairs) for pairs in runs])[:-1]
    return [_around(of) for of in np.split(_about_prompts(speeds, prompts), ends)]


def _around(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """For each place the mean of its neighbours; 0 if there are none."""
    found = np.zeros(len(values))
    for i in range(len(values)):
        near = np.append(values[max(i - _NEIGHBOURS, 0) : i], values[i + 1 : i + 1 + _NEIGHBOURS])
        found[i] = near.mean() if len(near) else 0.0
    return found


def at_the_same_pace(
    runs: Sequence[Sequence[dict[str, Any]]],
) -> tuple[list[list[dict[str, Any]]], float]:
    """The runs' pairs with the speed-ups they would have had at the mean pace, and how these follow it.

    Returns:
        The pairs, and the slope of the log of the speed-up over that of the pace.
    """
    prompts = np.array([pair["prompt"] for pairs in runs for pair in pairs])
    speedups = np.log([pair["speedup"] for pairs in runs for pair in pairs])
    around = paces(runs)
    x, y = _about_prompts(np.concatenate(around), prompts), _about_prompts(speedups, prompts)
    slope = float(x @ y / (x @ x)) if x @ x else 0.0
    return [
        [pair | {"speedup": pair["speedup"] * np.exp(-slope * pace)} for pair, pace in zip(pairs, of, strict=True)]
        for pairs, of in zip(runs, around, strict=True)
    ], slope


def by_category(pairs: Sequence[dict[str, Any]]) -> dict[str, float]:
    """The speed-up of each category and of "all", as `outrider bench decode` sums it up."""
    rounds: dict[tuple[str, int], list[float]] = defaultdict(list)
    for pair in pairs:
        rounds[pair["category"], pair["prompt"]].append(pair["speedup"])
    prompts = {key: centre(of) for key, of in rounds.items()}
    categories = {
        category: geometric_mean([of for key, of in prompts.items() if key[0] == category])
        for category in dict.fromkeys(category for category, _ in sorted(prompts, key=lambda key: key[1]))
    }
    return categories | {"all": geometric_mean(prompts.values())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--runs", type=int, default=3)
    arguments, options = parser.parse_known_args()
    if arguments.runs < 1:
        parser.error("--runs must be at least 1")
    found = [run(arguments.model, options) for _ in range(arguments.runs)]
    runs = [[pair for pair in of["pairs"] if pair["plain_tokens_per_second"]] for of in found]
    adjusted, slope = at_the_same_pace(runs)
    table = Table("category", *(f"run {i + 1}" for i in range(len(runs))), "off by", "at the same pace")
    even = [by_category(pairs) for pairs in adjusted]
    for category in even[0]:
        speedups = [(of["total"] if category == "all" else of["categories"][category])["speedup"] for of in found]
        distances = (deviation(speedups), deviation([of[category] for of in even]))
        table.add_row(category, *(f"{of:.2f}" for of in speedups), *(f"{of:.1%}" for of in distances))
    Console().print(table)
    spread = [median(of["plain_tokens_per_second"] for of in pairs) for pairs in runs]
    print(
        f"Plain decoding, tok/s: {', '.join(f'{of:.0f}' for of in spread)}. Where the machine is 10 % faster, drafts "
        f"bring {1.1**slope - 1:+.1%}."
    )


if __name__ == "__main__":
    main()
