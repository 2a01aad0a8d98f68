"""The queue of a replica and its clients, against replicas that take the time of each pass."""

from __future__ import annotations

import heapq
import itertools
import random

import pytest
from sleeping_replica import Job, StandIn

from outrider.roofline.clients import Clients, Replica
from outrider.roofline.hardware import Hardware
from outrider.roofline.speedup import Plan
from outrider.roofline.work import Matrix, Work

PLAN = Plan(
    Work((Matrix("Q4_0", 10**9, 562_500_000),), (), sweeps=1),
    Work((Matrix("Q4_0", 2 * 10**7, 11_250_000),), (), sweeps=1),
    Hardware("x", 30e9, 300e9),
    context=0,
)
CLIENTS = Clients(prompt=128, answer=100, pause=10.0)


def simulated(replica, clients, seconds):
    """Tokens a second, and the sorted times to the first token, of a replica and clients who pause at random."""
    rng, stand_in, order = random.Random(1), StandIn(replica), itertools.count()
    arrivals = [(rng.expovariate(1 / CLIENTS.pause), next(order)) for _ in range(clients)]
    heapq.heapify(arrivals)
    now, tokens, first, arrived = 0.0, 0, [], {}
    while now < seconds:
        while arrivals and arrivals[0][0] <= now:
            at, _ = heapq.heappop(arrivals)
            answer = 1 + int(rng.expovariate(1 / (CLIENTS.answer - 1)))
            job = Job(replica.prompt_seconds, answer)
            arrived[job] = at, answer
            stand_in.arrive(job)
        done = stand_in.next()
        if done is None:
            now = arrivals[0][0]
            continue
        now += done.seconds
        first += [now - arrived[job][0] for job in done.begun]
        for job in done.ended:
            tokens += arrived.pop(job)[1]
            heapq.heappush(arrivals, (now + rng.expovariate(1 / CLIENTS.pause), next(order)))
    return tokens / now, sorted(first)


@pytest.mark.parametrize(("clients", "acceptance"), [(1, 0.7), (6, 0.7), (20, 0.7), (20, None), (60, None)])
def test_the_formula_says_what_a_replica_does(clients, acceptance):
    replica = Replica(PLAN, CLIENTS, running=8, acceptance=acceptance)
    served = replica.served(clients)
    tokens_per_second, first = simulated(replica, clients, seconds=4_000 + 40_000 / clients)
    assert served.tokens_per_second == pytest.approx(tokens_per_second, rel=0.04)
    assert 0.75 < served.first_token.median / first[len(first) // 2] < 1.3
    assert 0.85 < served.first_token.most / first[len(first) * 99 // 100] < 1.5, "it may err on the long side"


def test_more_clients_wait_longer_and_more_replicas_bring_them_more():
    replica = Replica(PLAN, CLIENTS, running=8, acceptance=0.7)
    by_clients = [replica.served(clients) for clients in (1, 2.5, 4, 8, 16, 32, 500)]
    for name in ("load", "tokens_per_second", "first_token", "next_token"):
        figures = [getattr(served, name) for served in by_clients]
        assert figures == sorted(figures)
    assert by_clients[0].first_token.median == pytest.approx(replica.prompt_seconds, rel=1e-2)
    assert by_clients[-1].load == pytest.approx(1)


def test_half_of_a_waiting_time_is_at_most_the_median():
    """With a single place, the waiting time behind n requests is that of n services: an Erlang distribution."""
    prompt = Clients(prompt=1, answer=100, pause=1e-6)
    replica = Replica(PLAN, prompt, running=1, acceptance=None)
    first, service = replica.served(11).first_token, 100 * replica.token_seconds[0] + replica.prompt_seconds
    assert first.median == pytest.approx(9.669 * service, rel=0.01), "the median of ten exponential times"
    assert first.most == pytest.approx(18.783 * service, rel=0.01)
