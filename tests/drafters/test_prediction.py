from __future__ import annotations

from dataclasses import replace

import pytest
from drafters.sequences import proposed, sequence
from hypothesis import given
from hypothesis import strategies as st

from outrider import LLM, SamplingParams
from outrider.drafters.prediction import Follower, PredictionDrafter
from outrider.errors import UsageError


def after(prediction: list[int], answer: list[int]) -> Follower:
    follower = Follower(prediction)
    for token in answer:
        follower.append(token)
    return follower


@st.composite
def edits(draw):
    """A text of different tokens, and where it is edited: (begin, end, what comes in place)."""
    size = draw(st.integers(8, 60))
    begin = draw(st.integers(0, size - 4))
    end = draw(st.integers(begin, min(begin + 10, size - 4)))
    return list(range(size)), begin, end, draw(st.lists(st.integers(100, 200), max_size=12))


@given(edits())
def test_two_tokens_after_an_edit_the_place_is_found(edit):
    text, begin, end, new = edit
    follower = after(text, [*text[:begin], *new, *text[end : end + 2]])
    assert (follower.lost, follower.at) == (0, end + 2)


@given(st.lists(st.integers(0, 3), max_size=60), st.lists(st.integers(0, 3), max_size=60))
def test_a_place_agrees_with_the_answer_before_it(text, answer):
    follower = after(text, answer)
    assert 0 <= follower.at <= len(text)
    if not follower.lost and follower.agreed:
        count = min(follower.agreed, len(answer))
        assert text[follower.at - count : follower.at] == answer[len(answer) - count :]


def test_of_several_places_the_one_with_the_longest_agreement_then_the_nearest():
    text = [1, 2, 3, 9, 1, 2, 4, 9, 1, 2, 5]
    assert after(text, [7, 9, 1, 2]).at == 6  # 9 1 2 stands twice: the nearer one
    assert after(text, [7, 8, 9, 1, 2]).at == 6
    assert after(text, [4, 9, 1, 2]).at == 10  # 4 9 1 2 stands once


def drafted(prediction: list[int], answer: list[int], budget: int = 4) -> list[int]:
    drafter, state = PredictionDrafter(), replace(sequence(1, [50, 51]), prediction=prediction)
    drafter.open(state)
    state.tokens += answer
    return proposed(drafter, state, budget)


def test_it_proposes_what_follows():
    assert drafted([1, 2, 3, 4, 5, 6], []) == [1, 2, 3, 4]
    assert drafted([1, 2, 3, 4, 5, 6], [1, 2, 3]) == [4, 5, 6]
    assert drafted([1, 2, 3], [1, 2, 3]) == []


def test_a_text_that_was_left_is_proposed_as_replaced_and_as_inserted():
    assert drafted([1, 2, 3, 4], [1, 9], budget=2) == [3, 4, 2, 3]


def test_a_text_that_stays_left_is_proposed_no_more():
    assert drafted([1, 2, 3, 4], [1, *range(20, 40)]) == []


def test_a_long_text_that_repeats_itself_is_followed_in_time():
    """Places are compared by the thousand only if all of them were."""
    drafter, state = PredictionDrafter(), replace(sequence(1, [50]), prediction=[7, 7, 7, 8] * 20_000)
    drafter.open(state)
    for number in range(300):
        state.tokens += [7, 7, number + 100]
        proposed(drafter, state, 15)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_an_answer_with_edits_is_mostly_accepted(tiny, temperature):
    llm = LLM(tiny("gemma3").gguf, threads=1, context=256, lookup=False)
    params = SamplingParams(max_tokens=80, temperature=temperature, seed=4, ignore_end=True, draft="off")
    (plain,) = llm.generate([[5, 6, 7]], params)
    ids = list(plain.token_ids)
    edited = [*ids[:20], *ids[24:50], 9, 9, 9, *ids[50:]]
    (found,) = llm.generate([[5, 6, 7]], replace(params, draft=8, prediction=edited))
    assert found.token_ids == plain.token_ids
    assert found.stats.accepted_by_source["prediction"] > 60
    assert found.stats.target_passes < 20


def test_token_ids_outside_the_vocabulary_are_refused(tiny):
    llm = LLM(tiny("gemma3").gguf, threads=1, context=256)
    with pytest.raises(UsageError, match="prediction names token 99999, outside the vocabulary"):
        llm.generate([[5]], SamplingParams(prediction=(5, 99999)))
    for wrong in (5, b"ab", {"a": 1}):
        with pytest.raises(UsageError, match="prediction must be a text or a list of token ids"):
            SamplingParams(prediction=wrong)


def test_without_a_prediction_nothing_is_kept():
    drafter, state = PredictionDrafter(), sequence(1, [1, 2])
    drafter.open(state)
    assert proposed(drafter, state, 4) == []
    assert not drafter._followers
    drafter.close(state)
