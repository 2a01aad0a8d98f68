"""Runs of a benchmark are compared by their speed-ups, and by those that were timed."""

from __future__ import annotations

import pytest
from rich.console import Console

from benchmarks.repeatability import compare, deviation


def test_the_distance_is_that_from_the_median():
    assert deviation([2.0, 2.2, 1.9]) == pytest.approx(0.1)
    assert deviation([3.0]) == 0


def test_every_category_and_all_have_their_distances():
    def figures(speedup, as_timed):
        return {"speedup": speedup, "speedup_as_timed": as_timed}

    runs = [
        {"categories": {"prose": figures(speedup, as_timed)}, "total": figures(2 * speedup, 4.0)}
        for speedup, as_timed in ((2.0, 2.0), (2.04, 2.4), (1.98, 1.5))
    ]
    console = Console(width=100)
    with console.capture() as shown:
        console.print(compare(runs))
    prose, everything = (line.split() for line in shown.get().splitlines() if "prose" in line or "all" in line)
    assert [cell for cell in prose if cell != "│"] == ["prose", "2.00", "2.04", "1.98", "2.0%", "25.0%"]
    assert [cell for cell in everything if cell != "│"] == ["all", "4.00", "4.08", "3.96", "2.0%", "0.0%"]
