"""The plan of a measurement, and the closed loop."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st

from outrider.bench.endpoint.arm import Arm
from outrider.bench.endpoint.client import Client
from outrider.bench.endpoint.load import Level, plan_levels, rotation, run_closed_loop, split
from outrider.bench.suite import DRAFTER_CATEGORIES, shipped_prompts


def test_every_level_keeps_all_its_clients_busy_in_every_turn():
    assert plan_levels([1, 4, 16], 10, turns=1) == [Level(1, 10), Level(4, 10), Level(16, 16)]
    assert plan_levels([1, 4, 16], 10, turns=2) == [Level(1, 10), Level(4, 10), Level(16, 32)]


@given(st.lists(st.integers()), st.integers(1, 9))
def test_turns_share_the_jobs(jobs, turns):
    parts = split(jobs, turns)
    assert [job for part in parts for job in part] == jobs
    assert len(parts) == turns
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_prompts_take_turns_by_category():
    prompts = shipped_prompts()
    texts = rotation(prompts)
    assert sorted(texts) == sorted(prompt.text for prompt in prompts)
    category = {prompt.text: prompt.category for prompt in prompts}
    assert [category[text] for text in texts[: len(DRAFTER_CATEGORIES)]] == list(DRAFTER_CATEGORIES)


class SlowClient(Client):
    """Answers after as many turns of the event loop as the prompt says, and keeps count."""

    def __init__(self):  # no connections
        self.at_once, self.seen = 0, []

    async def ask(self, _arm, number, prompt):
        self.at_once += 1
        self.seen.append(self.at_once)
        for _ in range(int(prompt)):
            await asyncio.sleep(0)
        self.at_once -= 1
        return SimpleNamespace(number=number)


@given(st.lists(st.integers(0, 20), max_size=30), st.integers(1, 8))
def test_each_client_has_one_request_at_a_time(lengths, clients):
    client, ended = SlowClient(), []
    jobs = [(number, str(length)) for number, length in enumerate(lengths)]
    arm = Arm("A", "http://unused/v1", False, "m", 1, 0.0)
    answers, _ = asyncio.run(run_closed_loop(client, arm, jobs, clients, lambda: ended.append(1)))
    assert sorted(answer.number for answer in answers) == list(range(len(jobs)))
    assert len(ended) == len(jobs)
    # A client sleeps between requests as little as the loop lets it: all are busy while there is work for all.
    assert max(client.seen, default=0) <= min(clients, len(jobs))
    if lengths and min(lengths) > 0:
        assert max(client.seen) == min(clients, len(jobs))
