"""How long it will take is said before it starts, and is near the truth."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outrider import SamplingParams
from outrider.bench import pace as pace_module
from outrider.bench.pace import MOST_SAMPLES, Pace, measure_pace, turn_lengths
from outrider.bench.prompt import Form, Message, Prompt
from outrider.errors import UsageError

ANSWER_SECONDS = 2.0


ANSWER_TOKENS = 64


class TimedComparer:
    """Prompts cost what their tokens cost, a short one at least a pass; the first one twenty times that.

    Again, one that is longer than its answer costs two arms a pass, and the third one, a peer, what it did before.
    """

    arms = ("plain", "drafted", "peer")

    def __init__(self, monkeypatch):
        self.llm = SimpleNamespace(encode=lambda text: [0] * len(text), engine=SimpleNamespace(chunk=256))
        self.sampling = SamplingParams(max_tokens=ANSWER_TOKENS)
        self.now, self.used, self.cold, self.sampled = 0.0, 0.0, 20.0, []
        monkeypatch.setattr(pace_module, "perf_counter", lambda: self.now)

    def spend(self, seconds):
        self.now += seconds * self.cold
        self.cold = 1.0

    def prompt_seconds(self, tokens, cached=False):
        once = max(0.01 * tokens, 0.1) * (1 + tokens / 40_000)  # attention grows with what came before
        return 2 * (0.1 if cached and tokens > ANSWER_TOKENS else once) + once / 2

    def prefill(self, token_ids, *, cache_prompt=False):
        self.spend(self.prompt_seconds(len(token_ids), cache_prompt))

    def compare(self, prompt, _order):
        self.sampled.append(prompt)
        self.spend(self.seconds(prompt))

    def seconds(self, prompt, cached=False):
        return self.prompt_seconds(len(prompt.text), cached) + ANSWER_SECONDS


@given(
    st.lists(st.integers(1, 400), min_size=1, max_size=60),
    st.lists(st.integers(2000, 4500), max_size=6),
    st.integers(1, 5),
)
def test_the_estimate_is_within_a_third_with_long_prompts_too(short, long, rounds):
    with pytest.MonkeyPatch.context() as monkeypatch:
        comparer = TimedComparer(monkeypatch)
        prompts = [Prompt("prose", "a" * tokens) for tokens in (*short, *long)]
        lengths = turn_lengths(prompts, comparer.llm, 64)
        pace = measure_pace(comparer, prompts, lengths, rounds)
        once, again = (sum(comparer.seconds(prompt, cached) for prompt in prompts) for cached in (False, True))
        assert pace.rounds_seconds(lengths, rounds) == pytest.approx(once + (rounds - 1) * again, rel=1 / 3)
        # A few percent of the answers, and no long ones while there are others.
        assert len(comparer.sampled) <= max(1, rounds * len(prompts) // 12)
        assert len(comparer.sampled) <= MOST_SAMPLES
        assert all(len(prompt.text) <= 512 for prompt in comparer.sampled)


def test_samples_are_of_several_categories(monkeypatch):
    comparer = TimedComparer(monkeypatch)
    prompts = [Prompt(f"category {i // 4}", "a" * 50) for i in range(48)]
    measure_pace(comparer, prompts, turn_lengths(prompts, comparer.llm, 64), 3)
    assert len({prompt.category for prompt in comparer.sampled}) == MOST_SAMPLES


@pytest.mark.parametrize(
    ("answer_seconds", "rounds"), [(0.0, 8), (0.2, 8), (0.59, 8), (0.7, 6), (2.0, 2), (4.0, 1), (1000.0, 1)]
)
def test_unasked_it_takes_less_than_five_minutes_wherever_it_can(answer_seconds, rounds):
    pace = Pace(0.0, 0.0, answer_seconds, ANSWER_TOKENS)
    assert pace.fitting_rounds([[10]] * 50) == rounds
    assert rounds == 1 or 1.25 * rounds * 50 * answer_seconds <= 300  # should the estimate be a fifth too low


def test_long_prompts_are_computed_in_the_first_round_alone():
    pace = Pace(prompt_token_seconds=0.01, cached_token_seconds=0.0, answer_seconds=1.0, answer_tokens=ANSWER_TOKENS)
    assert pace.rounds_seconds([[3000], [30, 80]], 3) == pytest.approx((30.0 + 0.3 + 0.8 + 3.0) + 2 * (0.3 + 3.0))
    assert pace.fitting_rounds([[3000]] * 6) == 8  # 180 seconds of prompts, then 6 a round
    assert pace.fitting_rounds([[3000]] * 7) == 4
    assert pace.fitting_rounds([[3000]] * 8) == 1


def test_after_long_answers_no_prompt_is_in_the_cache(monkeypatch):
    comparer = TimedComparer(monkeypatch)
    prompts, lengths = [Prompt("retrieval", "a" * 3000)], [[3000]]
    comparer.sampling = SamplingParams(max_tokens=256)
    pace = measure_pace(comparer, prompts, lengths, 3)
    assert pace.seconds([3000], cached=True) < pace.seconds([3000]) / 2
    comparer.sampling = SamplingParams(max_tokens=257)
    pace = measure_pace(comparer, prompts, lengths, 3)
    assert pace.seconds([3000], cached=True) == pace.seconds([3000])


def test_nothing_but_long_prompts_is_sampled_from_them(monkeypatch):
    comparer = TimedComparer(monkeypatch)
    prompts = [Prompt("retrieval", "a" * 3000)]
    pace = measure_pace(comparer, prompts, [[3000]], 1)
    assert pace.seconds([3000]) == pytest.approx(comparer.seconds(prompts[0]), rel=0.1)


def test_further_turns_count_with_the_answers_before_them(fake):
    llm = fake("demo")
    talk = Prompt("talk", messages=(Message("user", "Hello"),), further=("And?", "And then?"))
    first, second, third = turn_lengths([talk], llm, 100)[0]
    assert first == len(llm.chat_prompt([{"role": "user", "content": "Hello"}]))
    assert second == first + len("|assistant=...|user=And?") + 100
    assert third == second + len("|assistant=...|user=And then?") + 100
    assert turn_lengths([talk.in_form(Form.base)], llm, 100) == [[len("User: Hello\n\nAssistant:") + 1]]


def test_a_conversation_that_can_grow_too_long_is_refused_before_anything_is_decoded(fake, call, tmp_path):
    fake.context, fake.chat = 200, object()
    (tmp_path / "talk.jsonl").write_text('{"prompt": "x"}\n{"turns": ["Hello", "And?", "And then?"]}\n')
    ran = call("bench", "decode", "demo", "--suite", str(tmp_path / "talk.jsonl"), "--max-tokens", "90")
    assert ran.code == 2
    assert "prompt 2 (own), 'Hello'...: turn 3 can have" in ran.err
    assert "lower --max-tokens" in ran.err
    assert fake.made[0].asked == []


def test_a_prompt_that_the_model_refuses_is_named(fake):
    llm = fake("demo")

    def refuse(_text):
        raise UsageError("the prompt has 9 tokens and leaves no room")

    llm.encode = refuse
    with pytest.raises(UsageError, match=r"^prompt 1 \(prose\), 'x'\.\.\.: the prompt has 9 tokens"):
        turn_lengths([Prompt("prose", "x")], llm, 2)
