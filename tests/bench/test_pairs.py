"""Rounds of pairs: their order, and the time budget by a clock that the test turns."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import pytest

from outrider import SamplingParams
from outrider.bench.decode import rounds
from outrider.bench.pairs import PairDecoder, longest_prompt
from outrider.bench.prompt import Message, Prompt
from outrider.errors import UsageError

PROMPTS = [Prompt("prose", "a"), Prompt("code", "b"), Prompt("list", "c")]


@dataclass
class SlowDecoder:
    """Takes `seconds` of the test's clock for each prompt."""

    seconds: float
    now: float = 0.0
    asked: list = field(default_factory=list)
    arms: tuple = ("plain", "drafted")

    def clock(self):
        return self.now

    def converse(self, prompt, order):
        self.now += self.seconds
        self.asked.append((prompt, tuple(order)))
        yield prompt


def run(seconds_each, budget):
    decoder, said = SlowDecoder(seconds_each), []
    found = list(rounds(decoder, PROMPTS, budget, lambda *of: said.append(of), decoder.clock))
    assert [PROMPTS[i] for i, _ in found] == [prompt for prompt, _ in decoder.asked]
    return decoder, said


@pytest.mark.parametrize(("each", "budget", "pairs"), [(1, 10, 10), (4, 10, 3), (4, 13, 4), (100, 1, 3), (1, 0, 3)])
def test_no_pair_starts_after_the_time_is_spent_but_every_prompt_has_one(each, budget, pairs):
    decoder, said = run(each, budget)
    assert len(decoder.asked) == pairs
    assert {prompt for prompt, _ in decoder.asked[:3]} == set(PROMPTS)
    shares = [share for share, _ in said]
    assert shares == sorted(shares)  # the bar never goes back, nor to its end before the last pair has begun
    assert shares[0] == 0
    assert shares[-1] < 1
    assert all(share == pytest.approx(each * i / budget) for i, share in enumerate(shares) if i >= 3)
    assert said[0][1].startswith("round 1, prompt 1 of 3 (")


def test_the_arms_change_their_order_from_round_to_round_for_every_prompt():
    decoder, _ = run(1, 12)
    for prompt in PROMPTS:
        orders = [order for other, order in decoder.asked if other == prompt]
        assert len(orders) == 4
        assert all(first == second[::-1] for first, second in pairwise(orders))
    first_round = [order for _, order in decoder.asked[:3]]
    assert len(set(first_round)) == 2


def test_rounds_have_orders_of_their_own():
    decoder, _ = run(1, 30)
    prompts = [prompt for prompt, _ in decoder.asked]
    assert len({tuple(prompts[i : i + 3]) for i in range(0, 30, 3)}) > 1


def test_both_arms_compute_the_prompt_and_differ_in_drafting_alone(fake):
    llm = fake("demo")
    pair = PairDecoder(llm, None, SamplingParams(max_tokens=8, seed=3)).decode(PROMPTS[0], ("drafted", "plain"))
    (prompt, drafted), (same, plain) = llm.asked
    assert prompt == same
    assert (drafted.draft, plain.draft) == ("auto", "off")
    assert (drafted.cache_prompt, plain.cache_prompt, plain.seed) == (False, False, 3)
    assert pair.identical
    assert pair.decoded


def test_answers_that_differ_are_not_identical(fake):
    fake.unfaithful = True
    assert not PairDecoder(fake("demo"), None, SamplingParams()).decode(PROMPTS[0], ("plain", "drafted")).identical


def test_a_prompt_that_does_not_fit_is_named_before_anything_is_decoded(fake):
    llm = fake("demo")
    llm.context = 90
    assert longest_prompt(PROMPTS, llm, SamplingParams(max_tokens=64)) == 2
    talk = Prompt("talk", messages=(Message("user", "Hello"),), further=("And?",))
    with pytest.raises(UsageError, match=r"prompt 2 \(talk\), 'Hello'\.\.\.: turn 2 can have 9\d tokens"):
        longest_prompt([PROMPTS[0], talk], llm, SamplingParams(max_tokens=64))
    assert llm.asked == []
