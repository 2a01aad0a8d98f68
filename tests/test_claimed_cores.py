"""Cores that a process has for itself."""

from __future__ import annotations

import subprocess
import sys

import pytest

from outrider.claimed_cores import claim_cores
from outrider.system import cores_of, permitted_processors


class Process:
    """Claims cores; ends when it is killed."""

    PROGRAM = """
import os, sys
from pathlib import Path
from outrider.claimed_cores import claim_cores
print(*claim_cores(int(sys.argv[1]), Path(sys.argv[2])), "|", *os.sched_getaffinity(0), flush=True)
sys.stdin.read()
"""

    def __init__(self, count, folder):
        command = [sys.executable, "-c", self.PROGRAM, str(count), str(folder)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        claimed, _, affinity = self._process.stdout.readline().partition("|")
        self.claimed, self.affinity = claimed.split(), affinity.split()

    def kill(self):
        self._process.kill()
        self._process.communicate()


@pytest.fixture
def start(tmp_path):
    started = []

    def one(count):
        started.append(Process(count, tmp_path))
        return started[-1]

    yield one
    for process in started:
        process.kill()


@pytest.mark.skipif(sys.platform != "linux", reason="threads are tied to processors on Linux alone")
def test_processes_have_cores_of_their_own_while_they_last(start):
    """As many processes as cores get one each, a further one shares them, and one that ends leaves its own."""
    cores = [str(core) for core in cores_of(permitted_processors()).performance]
    processes = [start(1) for _ in cores]
    assert sorted(process.claimed[0] for process in processes) == sorted(cores)
    assert all(process.claimed == process.affinity for process in processes)
    further = start(1)
    assert further.claimed == []
    assert set(cores) <= set(further.affinity)
    processes[0].kill()
    assert start(1).claimed == processes[0].claimed


def test_cores_are_shared_where_others_could_put_links(tmp_path):
    tmp_path.chmod(0o777)
    assert claim_cores(1, tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_cores_are_shared_where_no_thread_is_tied(tmp_path, monkeypatch):
    monkeypatch.setattr("outrider.claimed_cores.tie_to", lambda _processors: False)
    assert claim_cores(1, tmp_path) == []


@pytest.mark.skipif(sys.platform != "linux", reason="threads are tied to processors on Linux alone")
def test_a_process_does_not_keep_half_of_what_it_wants(start):
    assert start(10_000).claimed == []
    assert start(1).claimed
