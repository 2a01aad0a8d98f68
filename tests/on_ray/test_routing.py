"""Which replica a request goes to, and which cores a replica has."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

pytest.importorskip("ray")

from outrider.ray.affinity import prefix_key
from outrider.system import cores_of, permitted_processors


def key(**body):
    return prefix_key(json.dumps(body).encode())


def user(text):
    return {"role": "user", "content": text}


def test_a_conversation_keeps_its_key():
    system, answer = {"role": "system", "content": "Be brief."}, {"role": "assistant", "content": "Yes."}
    first = key(model="m", messages=[system, user("Hi")], temperature=1.0)
    assert first == key(model="m", messages=[system, user("Hi"), answer, user("Why?")], seed=3)
    assert first != key(model="m", messages=[system, user("Hello")])
    assert first != key(model="m", messages=[user("Hi")])
    assert first != key(model="other", messages=[system, user("Hi")])


@pytest.mark.parametrize("name", ["prompt", "input"])
def test_a_text_goes_by_its_beginning(name):
    beginning = "x" * 600
    assert key(**{name: beginning + "a"}) == key(**{name: beginning + "b"})
    assert key(**{name: "a" + beginning}) != key(**{name: "b" + beginning})


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"3", b"{}", b'{"messages": []}', b"\xff", b"[" * 100_000])
def test_what_has_no_prompt_has_no_key(body):
    assert prefix_key(body) is None


class Process:
    """Claims cores; ends when it is killed."""

    PROGRAM = """
import os, sys
from pathlib import Path
from outrider.ray.claimed_cores import claim_cores
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


@pytest.mark.skipif(sys.platform != "linux", reason="no other system ties threads to processors")
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


@pytest.mark.skipif(sys.platform != "linux", reason="no other system ties threads to processors")
def test_a_process_does_not_keep_half_of_what_it_wants(start):
    assert start(10_000).claimed == []
    assert start(1).claimed
