"""Keyed sampling: reproducible, and distributed as it should be."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outrider.backends import cpu

KNOWN = [  # test vectors of the generator's authors (Random123)
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN)
def test_the_generator_gives_its_published_words(counter, key, words):
    assert cpu.philox4x32(counter, key) == words


def test_noise_is_gumbel():
    draws = np.array([cpu.gumbel_noise(seed, seed * 7, seed % 99) for seed in range(20000)])
    assert draws.mean() == pytest.approx(0.5772, abs=0.03)
    assert draws.std() == pytest.approx(math.pi / math.sqrt(6), abs=0.03)


def test_noise_is_independent_from_token_to_token():
    """Whether a group's largest noise comes first or all at once: their ranks and their sums tell no difference."""
    draws = np.array([[cpu.gumbel_noise(seed, 5, token) for token in range(60, 72)] for seed in range(8000)])
    uniform = np.sort(np.exp(-np.exp(-draws)), axis=0)  # of each token, as many as there are seeds
    steps = (np.arange(len(draws)) + 0.5) / len(draws)
    assert np.abs(uniform - steps[:, None]).max() * math.sqrt(len(draws)) < 2.2  # Kolmogorov and Smirnov, at 1 in 8,000
    between = np.corrcoef(draws.T) - np.eye(draws.shape[1])
    assert np.abs(between).max() * math.sqrt(len(draws)) < 4.5


def reference_kept(logits, temperature, top_k, top_p, min_p, typical_p):
    order = sorted(range(len(logits)), key=lambda t: (-logits[t], t))
    if top_k:
        order = order[:top_k]
    weights = [math.exp((logits[t] - logits[order[0]]) / temperature) for t in order]
    if top_p < 1:
        total, mass = math.fsum(weights), 0.0
        for count, weight in enumerate(weights, start=1):
            mass += weight
            if mass >= top_p * total:
                order = order[:count]
                break
    order = [t for t in order if math.exp((logits[t] - logits[order[0]]) / temperature) >= min_p]
    if typical_p < 1:
        weights = {t: math.exp((logits[t] - logits[order[0]]) / temperature) for t in order}
        total = math.fsum(weights.values())
        entropy = -math.fsum(w / total * math.log(w / total) for w in weights.values())
        nearest = sorted(order, key=lambda t: (abs(-math.log(weights[t] / total) - entropy), t))
        masses = itertools.accumulate(weights[t] for t in nearest)
        count = next(count for count, mass in enumerate(masses, start=1) if mass >= typical_p * total)
        order = [t for t in order if t in nearest[:count]]
    return order


settings_of_a_request = st.tuples(
    st.sampled_from([0.2, 0.7, 1.0, 1.7]),
    st.sampled_from([0, 1, 3, 40]),
    st.sampled_from([1.0, 0.9, 0.5, 0.05]),
    st.sampled_from([0.0, 0.021, 0.3]),
    st.sampled_from([1.0, 0.93, 0.4]),
)


@given(st.integers(0, 2**32), settings_of_a_request)
def test_filters_keep_what_they_say(seed, request):
    logits = np.random.default_rng(seed).normal(0, 3, 200).astype(np.float32)
    kept = cpu.Sampler().kept(logits, *request)
    assert kept == reference_kept([float(x) for x in logits], *request)


@given(st.integers(0, 2**32), settings_of_a_request, st.integers(0, 2**63), st.integers(0, 10**6))
def test_a_sample_is_the_argmax_of_logits_and_noise(seed, request, key, position):
    logits = np.random.default_rng(seed).normal(0, 3, 220).astype(np.float32)
    sampler = cpu.Sampler()
    kept = sampler.kept(logits, *request)
    expected = max(kept, key=lambda t: float(logits[t]) / request[0] + cpu.gumbel_noise(key, position, t))
    assert sampler.sample(logits, *request, key, position) == expected
    assert sampler.sample(logits, *request, key, position) == expected


@given(st.integers(0, 2**32), settings_of_a_request, st.integers(0, 2**63), st.integers(0, 10**6))
def test_candidates_may_come_in_any_order_under_their_names(seed, request, key, position):
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 3, 90).astype(np.float32)
    order = rng.permutation(90).astype(np.int32)
    sampler = cpu.Sampler()
    whole = sampler.sample(logits, *request, key, position)
    assert sampler.gumbel_top_k(logits[order], *request, key, position, 1, order)[0][0] == whole


@pytest.mark.parametrize(
    "request_",
    [
        (1.0, 0, 1.0, 0.0, 1.0),
        (0.7, 8, 1.0, 0.0, 1.0),
        (1.3, 0, 0.8, 0.0, 1.0),
        (1.0, 0, 1.0, 0.1, 1.0),
        (1.0, 0, 1.0, 0.0, 0.7),
        (0.9, 30, 0.95, 0.01, 0.9),
    ],
)
def test_the_sampled_distribution_is_right(request_):
    """Chi-square of 100,000 draws against the exact filtered distribution, at a one in 10,000 level."""
    from statistics import NormalDist

    logits = np.random.default_rng(1).normal(0, 1.3, 150).astype(np.float32)  # three groups of noise
    sampler, draws = cpu.Sampler(), 100_000
    kept = sampler.kept(logits, *request_)
    weights = np.exp((logits[kept].astype(float) - logits[kept].max()) / request_[0])
    expected = draws * weights / weights.sum()
    counts = dict.fromkeys(kept, 0)
    for position in range(draws):
        counts[sampler.sample(logits, *request_, 11, position)] += 1
    statistic = sum((counts[t] - e) ** 2 / e for t, e in zip(kept, expected, strict=True))
    freedom = len(kept) - 1
    # Wilson and Hilferty's approximation of the chi-square quantile.
    limit = freedom * (1 - 2 / (9 * freedom) + NormalDist().inv_cdf(0.9999) * math.sqrt(2 / (9 * freedom))) ** 3
    assert statistic < limit


@settings(max_examples=20)
@given(st.integers(0, 1000))
def test_nan_and_masked_logits_are_never_chosen(position):
    logits = np.full(40, -np.inf, np.float32)
    logits[7], logits[9], logits[11] = 1.0, np.nan, 0.5
    for request in [(0, 1, 0), (5, 1, 0), (0, 0.9, 0), (0, 1, 0.2)]:
        assert cpu.Sampler().sample(logits, 1.0, *request, 1.0, 0, position) in (7, 11)


def test_temperature_zero_takes_the_likeliest():
    logits = np.array([np.nan, 3.0, -np.inf, 3.0, 2.0], np.float32)
    assert cpu.Sampler().sample(logits, 0.0, 0, 1.0, 0.0, 1.0, 5, 6) == 1
    names = np.array([7, 6, 5, 4, 3], np.int32)
    assert cpu.Sampler().gumbel_top_k(logits, 0.0, 0, 1.0, 0.0, 1.0, 5, 6, 1, names) == [(4, 3.0)]


@given(st.integers(0, 2**32), st.integers(1, 9))
def test_the_likeliest_and_their_probabilities(seed, count):
    logits = np.random.default_rng(seed).normal(0, 3, 60).astype(np.float32)
    weights = np.exp(logits.astype(float))
    expected = np.argsort(-logits, kind="stable")[:count]
    found = cpu.likeliest(logits, count)
    assert [token for token, _ in found] == expected.tolist()
    assert [p for _, p in found] == pytest.approx((weights / weights.sum())[expected], rel=1e-5)


@given(st.integers(0, 2**32), settings_of_a_request, st.integers(0, 2**63), st.integers(0, 10**6), st.integers(1, 6))
def test_gumbel_top_k_are_the_sample_and_its_runners_up(seed, request, key, position, count):
    logits = np.random.default_rng(seed).normal(0, 3, 220).astype(np.float32)
    sampler = cpu.Sampler()
    values = [(float(logits[t]) / request[0] + cpu.gumbel_noise(key, position, t), t) for t in range(len(logits))]
    kept = set(sampler.kept(logits, *request))
    expected = [(t, value) for value, t in sorted(values, reverse=True) if t in kept][:count]
    found = sampler.gumbel_top_k(logits, *request, key, position, count)
    assert [token for token, _ in found] == [token for token, _ in expected]
    assert [value for _, value in found] == pytest.approx([value for _, value in expected], rel=1e-12)
    order = np.random.default_rng(seed).permutation(len(logits)).astype(np.int32)
    assert sampler.gumbel_top_k(logits[order], *request, key, position, count, order) == found
