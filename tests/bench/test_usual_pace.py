"""What is measured while the machine has another pace than mostly does not count."""

from __future__ import annotations

import json

import numpy as np
import pytest

from outrider.bench.interleave import interleaved
from outrider.bench.usual_pace import UsualPace, changes_of_pace


class Machine:
    """Its passes over one row take 8 ms, but 5 in some of the turns of its arms; its gauges see that."""

    def __init__(self, faster=()):
        self.faster, self.turns = faster, 0

    def arm(self, usually, faster):
        self.turns += 1
        return [faster if self.turns - 1 in self.faster else usually] * 3

    def gauge(self):
        return 0.005 if self.turns - 1 in self.faster else 0.008

    def measured(self, rounds):
        arms = {"one": lambda: self.arm(8.0, 5.0), "eight": lambda: self.arm(9.5, 8.7)}
        return interleaved(arms, rounds, self.gauge)


def test_a_steady_machine_loses_nothing():
    measured, pace = Machine().measured(4)
    assert measured == {"one": [[8.0] * 3] * 4, "eight": [[9.5] * 3] * 4}
    assert (pace.share, pace.spread) == (1.0, 1.0)
    assert changes_of_pace(pace.as_dict()) is None


def test_turns_at_another_pace_do_not_count():
    measured, pace = Machine(faster=range(5, 11)).measured(10)
    # Not only the six: the turn after them has a gauge at the other pace before it, and may be at either.
    assert measured == {"one": [[8.0] * 3] * 7, "eight": [[9.5] * 3] * 6}
    assert pace.share == pytest.approx(13 / 20)
    assert pace.spread == pytest.approx(1.6)
    assert "1.60 times as fast" in changes_of_pace(pace.as_dict())


def test_what_was_never_measured_at_the_usual_pace_counts_as_it_is():
    gauges = iter([0.008, 0.008, 0.008, 0.008, 0.005])
    arms = {"one": lambda: 1, "eight": lambda: 8, "ten": lambda: 10, "peer": lambda: 0}
    measured, pace = interleaved(arms, 1, lambda: next(gauges))
    assert measured == {"one": [1], "eight": [8], "ten": [10], "peer": [0]}
    assert pace.share == pytest.approx(3 / 4)


def test_of_two_paces_that_are_there_as_long_one_is_the_usual_one():
    pace = UsualPace([(0.005, 0.005), (0.008, 0.008)])
    assert pace.share == 0.5
    assert pace.holds((0.008, 0.008))


def test_one_gauge_is_enough():
    measured, pace = interleaved({"one": lambda: 1}, 1, lambda: 0.008)
    assert (measured, pace.share, pace.spread) == ({"one": [1]}, 1.0, 1.0)


@pytest.mark.parametrize("faster_share", [0.1, 0.3, 0.45])
def test_the_pace_that_is_there_longer_is_the_usual_one(faster_share):
    random = np.random.default_rng(0)
    gauges = np.where(np.arange(200) < 200 * faster_share, 0.005, 0.008) * random.normal(1, 0.03, 200)
    pace = UsualPace(list(zip(gauges, gauges, strict=True)))
    assert pace.holds((0.008, 0.008))
    assert not pace.holds((0.005, 0.005))
    assert not pace.holds((0.008, 0.005))
    assert not pace.holds((0.005, 0.008))
    assert pace.share == pytest.approx(1 - faster_share, abs=0.02)


def test_verify_tells_that_the_pace_changed(fake, call, monkeypatch):
    assert "changed its pace" not in call("bench", "verify", "demo").out
    passes = iter(range(1000))

    def verify(_self, rows, _context, repeat):
        return [(0.005 if 20 <= next(passes) < 40 else 0.008) + 0.001 * rows] * repeat

    monkeypatch.setattr(type(fake.made[0].measure), "verify", verify)
    told = call("bench", "verify", "demo", "--rounds", "7").out
    assert "The machine changed its pace: a pass over one row was 1.50 times as fast" in told
    assert "Counted is its usual pace, that of" in told
    passes = iter(range(1000))
    found = json.loads(call("bench", "verify", "demo", "--rounds", "7", "--json").out)
    assert found["milliseconds"] == pytest.approx([9, 10, 12, 16, 24])
    assert 0.5 < found["usual_pace_share"] < 1
