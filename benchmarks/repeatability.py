"""How far the same benchmark, run again, gives the same speed-ups.

usage: python -m benchmarks.repeatability MODEL [--runs 3] [OPTIONS OF outrider bench decode ...]

Runs `outrider bench decode MODEL --json` so many times, each in a process of its own, and prints each category's
speed-up in each run, with the largest deviation from their median; beside it that of the speed-ups as they were timed.
Nothing else may run beside it.

Where the machine changes its pace for minutes (a virtual one that its host moves about, a laptop that gets warm), what
drafts bring changes with it: a run counts passes at what they took at its own usual pace, and what that was is said
below the table.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table


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


def compare(runs: Sequence[dict[str, Any]]) -> Table:
    """Each category's speed-ups in all runs, and how far they are off."""
    table = Table("category", *(f"run {i + 1}" for i in range(len(runs))), "off by", "as timed")
    for category in (*runs[0]["categories"], "all"):
        figures = [of["total"] if category == "all" else of["categories"][category] for of in runs]
        speedups, as_timed = ([of[name] for of in figures] for name in ("speedup", "speedup_as_timed"))
        table.add_row(
            category, *(f"{of:.2f}" for of in speedups), f"{deviation(speedups):.1%}", f"{deviation(as_timed):.1%}"
        )
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--runs", type=int, default=3)
    arguments, options = parser.parse_known_args()
    if arguments.runs < 1:
        parser.error("--runs must be at least 1")
    runs = [run(arguments.model, options) for _ in range(arguments.runs)]
    Console().print(compare(runs))
    for number, of in enumerate(runs, 1):
        plain, as_timed = (of["total"][name] for name in ("plain_tokens_per_second", "speedup_as_timed"))
        print(
            f"run {number}: {of['usual_pace_share']:.0%} of the time at its usual pace, that of {plain:.0f} tok/s "
            f"without drafts; as timed, {as_timed:.2f} in all"
        )


if __name__ == "__main__":
    main()
