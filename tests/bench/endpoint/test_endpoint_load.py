"""The closed loop, and the order of the prompts."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from outrider.bench.endpoint import measure
from outrider.bench.endpoint.request import Answer
from outrider.bench.endpoint.server import Arm
from outrider.bench.suite import DRAFTER_CATEGORIES, shipped_prompts


def test_prompts_take_turns_by_category():
    prompts = shipped_prompts()
    texts = measure.rotation(prompts)
    assert sorted(texts) == sorted(prompt.text for prompt in prompts)
    category = {prompt.text: prompt.category for prompt in prompts}
    assert [category[text] for text in texts[: len(DRAFTER_CATEGORIES)]] == list(DRAFTER_CATEGORIES)


class SlowServer:
    """Answers after as many steps of the event loop as the prompt says, and keeps count."""

    def __init__(self):
        self.at_once, self.seen = 0, []

    async def ask(self, _http, _arm, number, prompt):
        self.at_once += 1
        self.seen.append(self.at_once)
        for _ in range(int(prompt)):
            await asyncio.sleep(0)
        self.at_once -= 1
        return Answer(number)


@given(st.lists(st.integers(0, 20), max_size=30), st.integers(1, 8))
def test_each_client_has_one_request_at_a_time(lengths, clients):
    server, ended = SlowServer(), []
    jobs = [(number, str(length)) for number, length in enumerate(lengths)]
    arm = Arm("A", "http://unused/v1", False, "m", 1, 0.0)
    original, measure.ask = measure.ask, server.ask
    try:
        loop = measure.run_closed_loop(None, arm, jobs, clients, lambda: ended.append(1))
        answers, _ = asyncio.run(loop)
    finally:
        measure.ask = original
    assert sorted(answer.number for answer in answers) == list(range(len(jobs)))
    assert len(ended) == len(jobs)
    assert max(server.seen, default=0) <= min(clients, len(jobs))
    if lengths and min(lengths) > 0:
        assert max(server.seen) == min(clients, len(jobs))
