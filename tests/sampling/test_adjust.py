"""Biases, penalties and minimum lengths, against a few plain lines and against transformers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from outrider import SamplingParams
from outrider.errors import UsageError
from outrider.sampling.adjust import LogitAdjustments
from outrider.sampling.choice import TokenChooser
from outrider.sampling.logprobs import logprobs_of

VOCAB = 40


def reference(logits, params, prompt, answer, end_tokens):
    """One token after another, as the parameters are documented."""
    out = []
    for token, value in enumerate(float(x) for x in logits):
        value += params.logit_bias.get(token, 0.0)
        if token in end_tokens and len(answer) < params.min_tokens:
            value = -np.inf
        if token in prompt or token in answer:
            value = value / params.repetition_penalty if value > 0 else value * params.repetition_penalty
        if token in answer:
            value -= params.presence_penalty
        out.append(value - params.frequency_penalty * answer.count(token))
    return np.array(out)


token_lists = st.lists(st.integers(0, VOCAB - 1), max_size=100)
parameters = st.builds(
    SamplingParams,
    max_tokens=st.just(200),
    repetition_penalty=st.sampled_from([1.0, 1.3, 0.8]),
    presence_penalty=st.sampled_from([0.0, 0.5, -1.0]),
    frequency_penalty=st.sampled_from([0.0, 0.25]),
    logit_bias=st.dictionaries(st.integers(0, VOCAB - 1), st.floats(-5, 5), max_size=4),
    min_tokens=st.integers(0, 60),
)


@given(st.integers(0, 2**32), parameters, token_lists, token_lists, token_lists)
def test_adjusted_logits_are_as_documented(seed, params, prompt, answer, path):
    adjustments = LogitAdjustments(params, prompt, {3, 9})
    for token in answer:
        adjustments.push(token)
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 3, VOCAB).astype(np.float32)
    changed = logits.copy()
    with adjustments.along(path):
        adjustments.apply(changed)
    assert np.allclose(changed, reference(logits, params, prompt, [*answer, *path], {3, 9}), rtol=1e-5, atol=1e-5)
    # The path has left no trace.
    after, order = logits.copy(), rng.permutation(VOCAB).astype(np.int32)
    adjustments.apply(after)
    assert np.allclose(after, reference(logits, params, prompt, answer, {3, 9}), rtol=1e-5, atol=1e-5)
    # Candidates under their names are changed alike, to the bit.
    some = logits[order][:25]
    adjustments.apply(some, order[:25])
    assert np.array_equal(some, after[order][:25])
    assert adjustments.needed or np.array_equal(after, logits)


def test_the_repetition_penalty_is_that_of_transformers():
    import torch
    from transformers import RepetitionPenaltyLogitsProcessor

    logits = np.random.default_rng(4).normal(0, 3, VOCAB).astype(np.float32)
    said = [3, 5, 5, 8]
    theirs = RepetitionPenaltyLogitsProcessor(1.3)(torch.tensor([said]), torch.tensor(logits[None]))
    adjustments = LogitAdjustments(SamplingParams(repetition_penalty=1.3), said, ())
    adjustments.apply(logits)
    assert np.allclose(logits, theirs[0].numpy(), rtol=1e-6)


@pytest.mark.parametrize("temperature", [0.6, 1.4])
def test_typical_and_other_filters_keep_what_transformers_keeps(temperature):
    import torch
    from transformers import (
        MinPLogitsWarper,
        TopKLogitsWarper,
        TopPLogitsWarper,
        TypicalLogitsWarper,
    )

    from outrider.backends import cpu

    cases = [
        (TopKLogitsWarper(7), (7, 1.0, 0.0, 1.0)),
        (TopPLogitsWarper(0.8), (0, 0.8, 0.0, 1.0)),
        (MinPLogitsWarper(0.1), (0, 1.0, 0.1, 1.0)),
        (TypicalLogitsWarper(0.7), (0, 1.0, 0.0, 0.7)),
    ]
    for seed in range(20):
        logits = np.random.default_rng(seed).normal(0, 3, 200).astype(np.float32)
        for warper, filters in cases:
            theirs = warper(None, torch.tensor(logits[None]) / temperature)[0]
            assert (
                sorted(cpu.Sampler().kept(logits, temperature, *filters)) == torch.where(theirs > -np.inf)[0].tolist()
            )


def test_a_guess_is_what_the_choice_will_be():
    """The drafter's rule is the target's: same logits, same answer so far, same token."""
    params = SamplingParams(temperature=0.9, seed=5, frequency_penalty=1.0, logit_bias={7: 2.0})
    rng = np.random.default_rng(0)
    chooser, twin = TokenChooser(params, [1, 2]), TokenChooser(params, [1, 2])
    path: list[int] = []
    rows = rng.normal(0, 2, (6, VOCAB)).astype(np.float32)
    for position, row in enumerate(rows):
        path.append(chooser.guesses(row.copy(), None, position, path, 2)[0][0])
    for position, row in enumerate(rows):
        token = twin.choose(int(row.argmax()), row.copy(), position)
        twin.push(token)
        assert token == path[position]


def test_what_is_drawn_from_nearly_these_logits_is_among_the_guesses():
    """A drafter's logits are a little off: the runners-up of the draw are then the token more often than the likeliest.

    300 draws from 50 tokens whose logits are off by a normal error; the chance of each guess falls with its rank."""
    rng, hits, likeliest = np.random.default_rng(3), [0, 0, 0], 0
    chooser = TokenChooser(SamplingParams(temperature=1.0, seed=9))
    for position in range(300):
        logits = rng.normal(0, 2, 50).astype(np.float32)
        near = (logits + rng.normal(0, 0.5, 50)).astype(np.float32)
        guesses = chooser.guesses(near.copy(), None, position, [], 3)
        chosen = chooser.choose(int(logits.argmax()), logits, position)
        for rank, (token, _) in enumerate(guesses):
            hits[rank] += token == chosen
        likeliest += chosen in np.argsort(-near)[:3]
        assert sum(likely for _, likely in guesses) == pytest.approx(1.0)
    assert hits[0] > hits[1] > hits[2] > 0
    assert sum(hits) > 270 > likeliest


@pytest.mark.parametrize("odd", [np.inf, -np.inf, np.nan, 3e38])
@pytest.mark.parametrize("temperature", [1e-29, 0.7, 100.0])
def test_odd_logits_of_a_drafter_give_guesses_that_are_numbers(odd, temperature):
    logits = np.array([odd, 1.0, odd, 2.0], np.float32)
    chooser = TokenChooser(SamplingParams(temperature=temperature, seed=1))
    for row in (logits, np.full(4, odd, np.float32)):
        guesses = chooser.guesses(row.copy(), None, 0, [], 3)
        assert all(0.0 <= likely <= 1.0 for _, likely in guesses)


def test_a_temperature_too_small_to_divide_by_takes_the_most_likely():
    params = SamplingParams(temperature=1e-308, top_p=0.9)
    assert params.greedy
    logits = np.array([3.0, 25.0, 7.0], np.float32)
    assert TokenChooser(params).choose(1, logits, 0) == 1


def test_a_bias_that_no_logit_can_hold_is_refused():
    with pytest.raises(UsageError, match="logit_bias of token 5"):
        SamplingParams(logit_bias={5: 1e39})
    assert SamplingParams(logit_bias={5: -float("inf")}).logit_bias == {5: -float("inf")}


def test_greedy_guesses_are_the_likeliest_with_their_probabilities():
    logits = np.random.default_rng(4).normal(0, 2, 40).astype(np.float32)
    chooser = TokenChooser(SamplingParams(temperature=0.0, logit_bias={5: -100.0}))
    found = chooser.guesses(logits.copy(), None, 7, [], 4)
    biased = logits.astype(float)
    biased[5] -= 100.0
    weights = np.exp(biased)
    order = np.argsort(-biased)[:4]
    assert [token for token, _ in found] == order.tolist()
    assert [likely for _, likely in found] == pytest.approx((weights / weights.sum())[order], rel=1e-5)


def test_logprobs_are_those_of_the_softmax():
    import torch

    logits = np.random.default_rng(2).normal(0, 4, 500).astype(np.float32)
    theirs = torch.log_softmax(torch.tensor(logits, dtype=torch.float64), -1).numpy()
    place = logprobs_of(logits, 17, 5)
    assert place.logprob == pytest.approx(theirs[17], abs=1e-6)
    assert [token for token, _ in place.top] == np.argsort(-theirs)[:5].tolist()
    assert [value for _, value in place.top] == pytest.approx(sorted(theirs)[:-6:-1], abs=1e-6)
    assert logprobs_of(logits, 17, 0).top == ()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"typical_p": 0}, "typical_p must be above 0 and at most 1, not 0"),
        ({"repetition_penalty": 1e-300}, "repetition_penalty must lie between 0.01 and 100, not 1e-300"),
        ({"presence_penalty": float("nan")}, "presence_penalty must lie between -100 and 100, not nan"),
        ({"frequency_penalty": 101}, "frequency_penalty must lie between -100 and 100, not 101"),
        ({"logit_bias": {5: float("inf")}}, r"logit_bias of token 5 must lie between .* or be -infinity, not inf"),
        ({"min_tokens": 9, "max_tokens": 8}, r"min_tokens must lie between 0 and max_tokens \(8\), not 9"),
        ({"logprobs": 21}, "logprobs must lie between 0 and 20, or be None, not 21"),
    ],
)
def test_parameters_out_of_range_are_named(arguments, message):
    with pytest.raises(UsageError, match=message):
        SamplingParams(**arguments)


@pytest.mark.parametrize("top_k", [5, 2**63, 10**30])
def test_a_top_k_above_the_vocabulary_keeps_all(top_k):
    logits = np.linspace(0, 1, 5, dtype=np.float32)
    drawn = [
        TokenChooser(SamplingParams(seed=s, temperature=1, top_k=top_k), [1]).choose(0, logits.copy(), 9)
        for s in range(50)
    ]
    free = [TokenChooser(SamplingParams(seed=s, temperature=1), [1]).choose(0, logits.copy(), 9) for s in range(50)]
    assert drawn == free
