"""The exactness contract, pass by pass: a row's bits are a function of the tokens before it and of nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from native_model import NativeModel
from tiny_checkpoints import VARIANTS, VOCAB, WINDOW, save_gguf

TARGETS = [name for name in VARIANTS if not name.startswith("assistant")]


def random_tokens(rng: np.random.Generator, count: int) -> list[int]:
    return [int(token) for token in rng.integers(0, VOCAB, count)]


@pytest.fixture(scope="module")
def models(tiny, tmp_path_factory):
    """(variant, threads) -> model, on weights that are quantized: the path that people use."""
    import gguf

    made: dict[tuple[str, int], NativeModel] = {}
    root = tmp_path_factory.mktemp("quantized")

    def get(variant: str, threads: int = 2) -> NativeModel:
        path = root / f"{variant}.gguf"
        if not path.exists():
            save_gguf(tiny(variant).model, path, gguf.GGMLQuantizationType.Q4_0)
        if (variant, threads) not in made:
            made[variant, threads] = NativeModel(path, threads=threads)
        return made[variant, threads]

    return get


@pytest.mark.parametrize("variant", TARGETS)
@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), context=st.integers(0, 3 * WINDOW), rows=st.integers(2, 16))
def test_a_row_alone_equals_the_row_among_others(models, variant, seed, context, rows):
    model, rng = models(variant), np.random.default_rng(seed)
    prompt, draft = random_tokens(rng, context), random_tokens(rng, rows)
    together = model.cache()
    alone = model.cache()
    if prompt:
        model.run(together, prompt, commit=range(context))
        model.run(alone, prompt, commit=range(context))
    logits, hidden = model.run(together, draft)
    for row in range(rows):
        one_logits, one_hidden = model.run(alone, draft[row : row + 1], commit=[0])
        assert np.array_equal(one_logits[0], logits[row])
        assert np.array_equal(one_hidden[0], hidden[row])


@pytest.mark.parametrize("variant", TARGETS)
@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), context=st.integers(1, 3 * WINDOW), rows=st.integers(2, 14))
def test_a_node_of_a_tree_equals_its_path_decoded_alone(models, variant, seed, context, rows):
    model, rng = models(variant), np.random.default_rng(seed)
    prompt, tokens = random_tokens(rng, context), random_tokens(rng, rows)
    parents = [-1] + [int(rng.integers(-1, row)) for row in range(1, rows)]
    cache = model.cache()
    model.run(cache, prompt, commit=range(context))
    logits, _ = model.run(cache, tokens, parents=parents)
    node = int(rng.integers(0, rows))
    path = [node]
    while parents[path[0]] != -1:
        path.insert(0, parents[path[0]])
    plain = model.cache()
    model.run(plain, prompt, commit=range(context))
    for row in path:
        expected, _ = model.run(plain, [tokens[row]], commit=[0])
        assert np.array_equal(expected[0], logits[row])
    # The accepted path is committed in place: what follows sees the same cache as after plain decoding.
    cache.commit(np.array(path, np.int32))
    after = random_tokens(rng, 3)
    assert np.array_equal(model.run(cache, after)[0], model.run(plain, after)[0])


@pytest.mark.parametrize("variant", TARGETS)
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), lengths=st.lists(st.integers(0, 2 * WINDOW), min_size=2, max_size=5))
def test_sequences_of_one_pass_do_not_see_each_other(models, variant, seed, lengths):
    model, rng = models(variant), np.random.default_rng(seed)
    rows = [int(rng.integers(1, 5)) for _ in lengths]
    prompts, drafts = [random_tokens(rng, n) for n in lengths], [random_tokens(rng, n) for n in rows]

    def prepared():
        caches = [model.cache() for _ in lengths]
        for cache, prompt in zip(caches, prompts, strict=True):
            if prompt:
                model.run(cache, prompt, commit=range(len(prompt)))
        return caches

    batch = model.run_many([(c, d, None, None) for c, d in zip(prepared(), drafts, strict=True)])
    for cache, draft, (logits, hidden) in zip(prepared(), drafts, batch, strict=True):
        alone = model.run(cache, draft)
        assert np.array_equal(alone[0], logits)
        assert np.array_equal(alone[1], hidden)


@pytest.mark.parametrize("variant", TARGETS)
def test_threads_do_not_change_a_bit(models, variant):
    tokens = random_tokens(np.random.default_rng(8), 50)
    expected = models(variant, 1).whole(tokens)
    for threads in (2, 3, 4):
        found = models(variant, threads).whole(tokens, chunk=13)
        assert np.array_equal(found[0], expected[0])
        assert np.array_equal(found[1], expected[1])


@pytest.mark.parametrize("variant", TARGETS)
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), context=st.integers(1, 4 * WINDOW))
def test_rejected_rows_leave_no_trace(models, variant, seed, context):
    """Drafts of any size that are thrown away, also past the ring's wrap, and a path committed now and then."""
    model, rng = models(variant), np.random.default_rng(seed)
    tokens = random_tokens(rng, context)
    cache = model.cache()
    for begin in range(0, context, 5):
        model.run(cache, random_tokens(rng, int(rng.integers(1, model.max_rows))))  # staged, never committed
        piece = tokens[begin : begin + 5]
        wrong = random_tokens(rng, int(rng.integers(0, 9)))
        model.run(cache, piece + wrong, commit=range(len(piece)))
    clean = model.cache()
    model.run(clean, tokens[:-1], commit=range(context - 1)) if context > 1 else None
    model.run(clean, tokens[-1:], commit=[0])
    after = random_tokens(rng, 2)
    assert np.array_equal(model.run(cache, after)[0], model.run(clean, after)[0])


@pytest.mark.parametrize("variant", TARGETS)
def test_truncating_equals_never_having_gone_on(models, variant):
    model, rng = models(variant), np.random.default_rng(3)
    tokens = random_tokens(rng, 60)
    cache = model.cache()
    model.run(cache, tokens, commit=range(60))
    for length in (55, 41, 20):
        cache.truncate(length)
        fresh = model.cache()
        model.run(fresh, tokens[: cache.length], commit=range(cache.length))
        other = random_tokens(rng, 4)
        assert np.array_equal(model.run(cache, other)[0], model.run(fresh, other)[0])


@pytest.mark.parametrize("variant", TARGETS)
def test_the_past_that_was_dropped_is_refused(models, variant):
    model = models(variant)
    cache = model.cache()
    for _ in range(8):
        model.run(cache, [5] * 60, commit=range(60))
    group = model.pages.windows.index(WINDOW)
    cache.drop(group, 0)
    with pytest.raises(ValueError, match=f"lacks page 0 of the layers with window {WINDOW}"):
        cache.truncate(WINDOW)
    assert cache.length == 480
    cache.truncate(0)
    assert cache.length == 0
