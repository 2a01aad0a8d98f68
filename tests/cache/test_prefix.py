"""What finished requests leave behind is used rightly, and takes no more memory than it may."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_checkpoints import VOCAB, WINDOW, save_gguf

from outrider import LLM, SamplingParams
from outrider.backends import cpu
from outrider.cache import cache_bytes
from outrider.errors import UsageError
from outrider.program import KvLayer

SHAPES = [cpu.KvShape(2, 32, WINDOW), cpu.KvShape(1, 64, 0)]


@pytest.fixture(scope="module")
def llm(tiny, tmp_path_factory):
    import gguf

    path = save_gguf(
        tiny("gemma4-e2b").model, tmp_path_factory.mktemp("prefix") / "tiny.gguf", gguf.GGMLQuantizationType.Q4_0
    )
    return LLM(path, threads=1, context=1024)


def answer(llm, prompt):
    return llm.generate([prompt], SamplingParams(max_tokens=6, ignore_end=True, logprobs=1, seed=1, temperature=1.0))[0]


def alone(llm, prompt):
    llm.parts.caches.clear()
    return answer(llm, prompt)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), length=st.integers(500, 900), place=st.floats(0, 1), more=st.integers(0, 99))
def test_an_edited_prompt_past_the_sliding_window(llm, seed, length, place, more):
    """The second prompt leaves the first one's text anywhere, also where the sliding layers' rings have wrapped."""
    rng = np.random.default_rng(seed)
    first = [int(token) for token in rng.integers(3, VOCAB, length)]
    at = int(place * (length - 1))
    second = [*first[:at], (first[at] + 1) % VOCAB, *(int(token) for token in rng.integers(3, VOCAB, more))]
    expected = alone(llm, second)
    alone(llm, first)
    found = answer(llm, second)
    assert (found.token_ids, found.logprobs) == (expected.token_ids, expected.logprobs)
    assert found.stats.reused_tokens in (0, at)


def test_a_little_in_common_does_not_cost_a_long_conversation(llm):
    """Every prompt begins with the same token: no reason to throw a thousand others away."""
    llm.parts.caches.clear()
    long, other = [2] + [9, 8, 7] * 100, [2, 5, 6, 7]
    answer(llm, long)
    assert answer(llm, other).stats.reused_tokens == 0
    assert answer(llm, [*long, 4]).stats.reused_tokens == len(long)


def test_a_prompt_can_be_computed_though_it_is_kept(llm):
    prompt = [3 + 7 * n % 500 for n in range(60)]
    first = alone(llm, prompt)
    again = SamplingParams(max_tokens=6, ignore_end=True, logprobs=1, seed=1, temperature=1.0, cache_prompt=False)
    (anew,) = llm.generate([prompt], again)
    assert (anew.token_ids, anew.logprobs, anew.stats.reused_tokens) == (first.token_ids, first.logprobs, 0)
    reused = answer(llm, prompt)
    assert (reused.token_ids, reused.logprobs, reused.stats.reused_tokens) == (first.token_ids, first.logprobs, 59)


def test_salts_keep_sequences_apart(llm):
    """What is kept under one is neither used, nor replaced, nor found equal under another."""
    llm.parts.caches.clear()
    prompt = [3 + 7 * n % 500 for n in range(60)]
    params = SamplingParams(max_tokens=6, ignore_end=True, logprobs=1)
    (first,) = llm.generate([prompt], replace(params, cache_salt="a"))
    for salt, reused, kept in (("b", 0, 2), ("", 0, 3), ("a", 59, 3), ("b", 59, 3), ("a ", 0, 4)):
        (found,) = llm.generate([prompt], replace(params, cache_salt=salt))
        assert (found.token_ids, found.logprobs) == (first.token_ids, first.logprobs)
        assert (found.stats.reused_tokens, llm.parts.caches.kept) == (reused, kept), salt
    assert llm.parts.caches.kept_bytes == sum(
        llm.parts.caches.bytes_of(sequence) for sequence in llm.parts.caches._finished
    )


def test_a_request_that_takes_no_part_leaves_the_cache_as_it_was(llm):
    llm.parts.caches.clear()
    prompt = [3 + 7 * n % 500 for n in range(60)]
    params = SamplingParams(max_tokens=6, ignore_end=True, cache_prompt=False)
    for _ in range(2):
        (found,) = llm.generate([prompt], params)
        assert (found.stats.reused_tokens, llm.parts.caches.kept, llm.parts.caches.kept_bytes) == (0, 0, 0)
    assert llm.parts.caches.in_use == 0


@pytest.mark.parametrize("salt", ["x" * 513, 7, None])
def test_a_salt_is_a_text_of_bounded_length(salt):
    with pytest.raises(UsageError, match="cache_salt must be a text of at most 512 characters"):
        SamplingParams(cache_salt=salt)
    SamplingParams(cache_salt="x" * 512)


def test_what_is_the_same_is_kept_once(llm):
    """Shorter than its answer, a prompt is computed anew each time; one that differs in its last token is another."""
    llm.parts.caches.clear()
    params = SamplingParams(max_tokens=20, ignore_end=True)
    for number in range(3):
        for prompt, draft in (([5, 6, 7], "auto"), ([5, 6, 7], "off"), ([5, 6, 8], "auto")):
            (found,) = llm.generate([prompt], replace(params, draft=draft))
            assert found.stats.reused_tokens == 0
        assert llm.parts.caches.kept == 2, f"after {number + 1} times"
    assert llm.parts.caches.kept_bytes == sum(
        llm.parts.caches.bytes_of(sequence) for sequence in llm.parts.caches._finished
    )


def test_bytes_bound_what_is_kept_and_the_oldest_goes_first(llm):
    pool = llm.parts.caches
    pool.clear()
    before = pool.most_bytes
    prompts = [[10 + number, *range(20, 80)] for number in range(4)]
    try:
        answer(llm, prompts[0])
        one = pool.kept_bytes
        assert one > 0
        pool.most_bytes = 3 * one
        for prompt in prompts[1:3]:
            answer(llm, prompt)
        assert pool.kept == 3
        assert answer(llm, [*prompts[0], 5]).stats.reused_tokens > 50  # used again: now the youngest
        answer(llm, prompts[3])
        assert pool.kept == 3
        assert pool.kept_bytes <= pool.most_bytes
        assert pool.kept_bytes == sum(pool.bytes_of(sequence) for sequence in pool._finished)
        assert answer(llm, [*prompts[0], 5, 6]).stats.reused_tokens > 50
        assert answer(llm, prompts[1]).stats.reused_tokens == 0  # that one had gone
        pool.most_bytes = one - 1
        answer(llm, prompts[2])
        assert (pool.kept, pool.kept_bytes) == (0, 0)
        assert pool.in_use == 0
    finally:
        pool.most_bytes = before


def test_memory_once_taken_counts_after_going_back(llm):
    llm.parts.caches.clear()
    answer(llm, [3 + n % 500 for n in range(250)])
    big = llm.parts.caches.kept_bytes
    answer(llm, [3 + n % 500 for n in range(130)])
    assert llm.parts.caches.kept == 1
    assert llm.parts.caches.kept_bytes == big


def filler(shapes, kv_format):
    """What fills a cache with zeros up to a length, 250 positions a pass."""
    program = cpu.Program(256, shapes, kv_format, cpu.ThreadPool(1))
    embedding = np.zeros(4 * 32, np.float32).view(np.uint8)
    program.gather(cpu.table("F32", 4, 32, embedding), 1.0, program.buffer("x", 32))
    for layer, shape in enumerate(shapes):
        key, value = (program.buffer(f"{what} {layer}", shape.kv_heads * shape.head_dim) for what in ("key", "value"))
        program.store_kv(key, value, layer)

    def fill(cache, length):
        while cache.length < length:
            rows = min(250, length - cache.length)
            zeros, parents = np.zeros(rows, np.int32), np.arange(-1, rows - 1, dtype=np.int32)
            program.run(zeros, zeros, parents, np.zeros(0, np.int32), [cache])
            cache.commit(np.arange(rows, dtype=np.int32))

    return fill


def test_estimated_bytes_are_what_the_system_gives():
    """Fill caches of known shape, drop what no window reaches any more, and look at the resident set."""
    layers = [KvLayer(4, 256, 512), KvLayer(4, 512, 0)] * 4

    def resident():
        return psutil.Process().memory_info().rss

    held = []  # freed memory may be used again, and would not show
    for kv_format in cpu.KV_FORMATS:
        before = resident()
        pages = cpu.KvPages(cpu.kv_shapes(layers), kv_format)
        cache = cpu.KvCache(pages, 8192, 256)
        assert resident() - before < 1 << 20, "memory is taken as it is needed"
        fill = filler(cpu.kv_shapes(layers), kv_format)
        held += [cache, cpu.KvCache(pages, 8192, 256)]
        fill(held[-1], 256)  # the program's own buffers
        before = resident()
        fill(cache, 3000)
        assert resident() - before < 1.05 * pages.bytes_in_use + (64 << 20)
        held.pop()
        for index in range((3000 - 512) // cpu.PAGE_POSITIONS):
            cache.drop(pages.windows.index(512), index)
        assert 0 <= cache_bytes(layers, 3000, 256, kv_format) - pages.bytes_in_use < 4 * pages.page_bytes(0)
    assert cache_bytes(layers, 100, 256, "float16") < cache_bytes(layers, 1000, 256, "float16")
    assert cache_bytes(layers[:1], 900, 256, "float16") == cache_bytes(layers[:1], 5000, 256, "float16")


def test_a_negative_bound_is_refused(tiny):
    with pytest.raises(UsageError, match="prefix_cache_bytes must be 0"):
        LLM(tiny("gemma3").gguf, prefix_cache_bytes=-1)
