"""A short run of `make mutations`."""

from __future__ import annotations

import os
import signal
import sys
import time

import pytest
from checkpoints import mutate

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits a process's memory as Linux does")


@pytest.fixture(scope="module")
def mutations(tmp_path_factory):
    return mutate.Mutations(tmp_path_factory.mktemp("mutations"))


@pytest.mark.parametrize("first", range(0, 400, 40))
def test_a_damaged_checkpoint_loads_or_is_refused(mutations, first):
    for number in range(first, first + 40):
        what, ended = mutations.attempt(number)
        assert not mutate.is_problem(ended), f"{what}: {ended}"


def test_every_seed_loads_as_it_is(mutations):
    for seed in mutate.SEEDS:
        assert mutations.unchanged(seed) == "loaded"


def test_what_is_looked_for_is_seen(monkeypatch):
    monkeypatch.setattr(mutate, "SECONDS", 0.2)
    crashed = mutate.in_a_process(lambda: str(os.kill(os.getpid(), signal.SIGTERM)))
    hung = mutate.in_a_process(lambda: str(time.sleep(20)))
    raised = mutate.in_a_process(lambda: str(1 // 0))
    assert crashed == "CRASHED with status 15"
    assert hung == "HANGS after 0.2 s"
    assert raised.startswith("RAISED Traceback")
    assert "ZeroDivisionError" in raised
    assert all(map(mutate.is_problem, (crashed, hung, raised, "refused: ", "")))
    assert not mutate.is_problem("refused: model.gguf: is empty. Download it again.")
