"""A short run of `make endurance`, and that its eye for growth is sharp."""

from __future__ import annotations

import random

import pytest
from server import endurance
from server.apis import APIS
from server.server_process import Seen

MIB = 1 << 20


@pytest.mark.slow
def test_a_server_survives_mixed_requests_and_clients_that_leave(tmp_path):
    with endurance.served("tiny", tmp_path) as server:
        tally = endurance.endure(server, requests=240, seed=5_000)
        assert server.close() == 0
    assert tally.sent >= 240
    assert tally.compared > 60
    assert all(tally.routes[path] >= 20 for path in APIS)
    for what in ("answered", "streamed", "refused", "told to come back later"):
        assert tally.what[what] > 0
    assert sum(count for what, count in tally.what.items() if what.startswith("clients that left")) >= 20


def laps(resident, files=lambda _: 8, threads=lambda _: 9, count=40):
    noise = random.Random(0)
    return [
        (248 * lap, Seen(round(resident(248 * lap)) + noise.randint(-MIB // 4, MIB // 4), files(lap), threads(lap)))
        for lap in range(1, count + 1)
    ]


def test_growth_is_told_from_warming_up_and_from_noise():
    warm = laps(lambda sent: 100 * MIB + min(sent, 2000) * 10_000)
    assert endurance.growth(warm) is None
    assert "resident, by" in endurance.growth(laps(lambda sent: 100 * MIB + sent * 500))
    assert "files, by" in endurance.growth(laps(lambda _: 100 * MIB, files=lambda lap: 8 + lap // 5))
    assert "threads, by" in endurance.growth(laps(lambda _: 100 * MIB, threads=lambda lap: 8 + lap // 5))
