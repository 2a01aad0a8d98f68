"""Behind routers from PyPI: a conversation stays on its replica; one that stops costs what docs/replicas.md says."""

from __future__ import annotations

import signal
import sys

import pytest
from server.router_process import routed
from server.router_trials import KEEPING, converse, stop_one
from server.served_checkpoint import save_served

pytestmark = [
    pytest.mark.replicas,
    pytest.mark.skipif(sys.platform != "linux", reason="the routers are packaged for Linux"),
]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return save_served(tmp_path_factory.mktemp("routed"))


@pytest.fixture(scope="module", params=[2, pytest.param(4, marks=pytest.mark.full)], ids="{} replicas".format)
def count(request):
    return request.param


@pytest.fixture(scope="module", params=["smg", pytest.param("vllm-router", marks=pytest.mark.full)])
def router(request):
    return request.param


@pytest.fixture(scope="module")
def behind(checkpoint, router, count):
    with routed(router, *checkpoint, count, KEEPING[router]) as started:
        yield started


def test_a_conversation_stays_on_the_replica_that_has_its_prefix(behind):
    cached = converse(behind)
    assert cached.kept == cached.turns


@pytest.mark.full
def test_a_round_robin_does_not_keep_it(checkpoint, router):
    with routed(router, *checkpoint, 2, "round_robin") as behind:
        cached = converse(behind)
    assert cached.kept < cached.turns


def test_a_replica_that_drains_costs_no_request(behind):
    outcome = stop_one(behind, signal.SIGTERM)
    assert outcome.held > 0
    assert (outcome.broken, outcome.failed, outcome.status) == (0, 0, 0), outcome
    behind.restore()


def test_a_replica_that_dies_costs_the_streams_it_had(behind):
    outcome = stop_one(behind, signal.SIGKILL)
    assert 0 < outcome.held < outcome.streams
    assert (outcome.broken, outcome.failed) == (outcome.held, 0), outcome
