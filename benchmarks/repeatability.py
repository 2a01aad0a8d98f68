"""How far the same benchmark, run again, gives the same speed-ups.

usage: python -m benchmarks.repeatability MODEL [--runs 3] [OPTIONS OF outrider bench decode ...]

Runs `outrider bench decode MODEL --json` so many times, each in a process of its own, and prints each category's
speed-up in each run, with the largest deviation from their median. Nothing else may run beside it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
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


def deviation(speedups: list[float]) -> float:
    """The largest distance from the median, as a share of it."""
    middle = median(speedups)
    return max(abs(speedup / middle - 1) for speedup in speedups)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--runs", type=int, default=3)
    arguments, options = parser.parse_known_args()
    if arguments.runs < 1:
        parser.error("--runs must be at least 1")
    runs = [run(arguments.model, options) for _ in range(arguments.runs)]
    table = Table("category", *(f"run {i + 1}" for i in range(len(runs))), "off by")
    for category in (*runs[0]["categories"], "all"):
        speedups = [(of["total"] if category == "all" else of["categories"][category])["speedup"] for of in runs]
        table.add_row(category, *(f"{speedup:.2f}" for speedup in speedups), f"{deviation(speedups):.1%}")
    Console().print(table)


if __name__ == "__main__":
    main()
