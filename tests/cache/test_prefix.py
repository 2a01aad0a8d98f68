"""What finished requests leave behind is used rightly, and takes no more memory than it may."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_checkpoints import VOCAB, save_gguf

from outrider import LLM, SamplingParams
from outrider.backends import cpu
from outrider.cache import cache_bytes, checkpoints
from outrider.cache.memory import sequence_bytes
from outrider.errors import OutriderError, UsageError
from outrider.program import KvLayer


@pytest.fixture(scope="module")
def llm(tiny, tmp_path_factory):
    import gguf

    path = save_gguf(
        tiny("gemma4-e2b").model, tmp_path_factory.mktemp("prefix") / "tiny.gguf", gguf.GGMLQuantizationType.Q4_0
    )
    return LLM(path, threads=1, context=1024)


ONE = SamplingParams(max_tokens=6, ignore_end=True, logprobs=1, seed=1, temperature=1.0)


def answer(llm, prompt):
    return llm.generate([prompt], ONE)[0]


def same(one, other):
    return (one.token_ids, one.logprobs) == (other.token_ids, other.logprobs)


def alone(llm, prompt):
    llm.parts.caches.clear()
    return answer(llm, prompt)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), length=st.integers(1, 900), place=st.floats(0, 1), more=st.integers(0, 99))
def test_a_prompt_takes_what_it_begins_with_to_the_token(llm, seed, length, place, more):
    """The second prompt leaves the first one's text anywhere; its bits are those of the same prompt alone."""
    rng = np.random.default_rng(seed)
    first = [int(token) for token in rng.integers(3, VOCAB, length)]
    at = int(place * (length - 1))
    second = [*first[:at], (first[at] + 1) % VOCAB, *(int(token) for token in rng.integers(3, VOCAB, more))]
    expected = alone(llm, second)
    alone(llm, first)
    found = answer(llm, second)
    assert same(found, expected)
    assert found.stats.reused_tokens == at


@settings(max_examples=25, deadline=None)
@given(length=st.integers(500, 900), place=st.floats(0, 1))
def test_rows_are_computed_again_only_behind_a_whole_window(llm, length, place):
    """Where sliding layers have dropped pages, a prompt goes back to the last position with all of its window."""
    first = [3 + 7 * n % 500 for n in range(length)]
    second = [*first[: int(place * (length - 1))], 5, 6, 7]
    at = len(second) - 3 + (first[len(second) - 3] == 5)
    expected = alone(llm, second)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoints, "NEWEST", 0)
        patch.setattr(checkpoints, "EVERY", 256)
        alone(llm, first)
        found = answer(llm, second)
    assert same(found, expected)
    assert at // 256 * 256 <= found.stats.reused_tokens <= at
    assert found.stats.reused_tokens in (at, at // 128 * 128, at // 256 * 256)


def test_a_conversation_whose_thought_was_stripped_goes_back_to_the_turn(llm):
    """The model's turn begins far before the newest positions: its window is kept all the same."""
    prompt, params = [3 + 7 * n % 500 for n in range(300)], SamplingParams(max_tokens=400, ignore_end=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoints, "NEWEST", 64)
        llm.parts.caches.clear()
        (first,) = llm.generate([prompt], params)
        second = [*prompt, *first.token_ids[-20:], *range(30, 60)]
        found = answer(llm, second)
    assert found.stats.reused_tokens == 300
    assert same(found, alone(llm, second))


def computed(outputs):
    """Prompt tokens that were not taken from others."""
    return sum(output.stats.prompt_tokens - output.stats.reused_tokens for output in outputs)


def test_clients_with_one_system_prompt_compute_it_once(llm):
    """All at once, in the memory of one; each also as if it were alone."""
    system = [3 + 7 * n % 500 for n in range(700)]
    prompts = [[*system, 20 + client, 30, 40] for client in range(8)]
    expected = [alone(llm, prompt) for prompt in prompts]
    llm.parts.caches.clear()
    outputs = llm.generate(prompts, ONE)
    assert all(same(*both) for both in zip(outputs, expected, strict=True))
    assert computed(outputs) == 700 + 8 * 3
    pages = llm.parts.caches.pages
    of_one = 700 // cpu.PAGE_POSITIONS * sum(pages.page_bytes(group) for group in range(len(pages.windows)))
    assert llm.parts.caches.kept_bytes == of_one + 8 * of_one // 5


def test_several_answers_compute_their_prompt_once(llm):
    prompt = [3 + 7 * n % 500 for n in range(700)]
    llm.parts.caches.clear()
    params = replace(ONE, n=4)
    (output,) = llm.generate([prompt], params)
    assert computed([output, *output.others]) == 700 + 3
    for number, each in enumerate(params.each()):
        llm.parts.caches.clear()
        assert same([output, *output.others][number], llm.generate([prompt], each)[0])


def test_requests_beyond_the_memory_wait_or_are_refused(llm):
    """Eight at once with room for two: all are answered, as alone. What could never fit is refused at once."""
    prompts = [[10 + number, *range(20, 420)] for number in range(8)]
    expected = [alone(llm, prompt) for prompt in prompts]
    pool = llm.parts.caches
    pool.clear()
    before = pool.admission.budget
    most = 2 * sequence_bytes(pool.pages, 407, 256)
    try:
        pool.admission.budget = most
        with watched(pool) as seen:
            outputs = llm.generate(prompts, ONE)
        assert all(same(*both) for both in zip(outputs, expected, strict=True))
        assert max(seen) <= most
        pool.admission.budget //= 2
        with pytest.raises(OutriderError, match="the request may come to 1,000 tokens, prompt and answer, whose keys"):
            llm.generate([[5] * 900], replace(ONE, max_tokens=100))
        assert pool.in_use == 0
    finally:
        pool.admission.budget = before


@contextmanager
def watched(pool):
    """The bytes of all pages after each pass over a request."""
    seen, committed = [], pool.committed

    def watch(sequence):
        seen.append(pool.pages.bytes_in_use)
        committed(sequence)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pool, "committed", watch)
        yield seen


def test_a_little_in_common_does_not_cost_a_long_conversation(llm):
    """Every prompt begins with the same token."""
    llm.parts.caches.clear()
    long, other = [2] + [9, 8, 7] * 100, [2, 5, 6, 7]
    answer(llm, long)
    assert answer(llm, other).stats.reused_tokens == 1
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
    """One that differs in its last token is another."""
    llm.parts.caches.clear()
    params = SamplingParams(max_tokens=20, ignore_end=True)
    for number in range(3):
        for prompt, draft in (([5, 6, 7], "auto"), ([5, 6, 7], "off"), ([5, 6, 8], "auto")):
            (found,) = llm.generate([prompt], replace(params, draft=draft))
            assert found.stats.reused_tokens == (2 if number or prompt[2] == 8 or draft == "off" else 0)
        assert llm.parts.caches.kept == 2, f"after {number + 1} times"


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
        assert answer(llm, [*prompts[0], 5, 6]).stats.reused_tokens > 50
        assert answer(llm, prompts[1]).stats.reused_tokens == 0  # that one had gone
        pool.most_bytes = one - 1
        answer(llm, prompts[2])
        assert (pool.kept, pool.kept_bytes) == (0, 0)
        assert pool.in_use == 0
    finally:
        pool.most_bytes = before


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


@pytest.mark.parametrize("heads", [5, 9, 12])
def test_pages_of_any_size_take_no_more_memory_than_is_counted(heads):
    """Here 1.3, 2.4 and 3.1 MB: whole huge pages of 2 MB would take up to 1.8 times as much."""
    shapes = cpu.kv_shapes([KvLayer(heads, 128, 0)])
    pages, fill = cpu.KvPages(shapes, "float32"), filler(shapes, "float32")
    first, cache = cpu.KvCache(pages, 8192, 256), cpu.KvCache(pages, 8192, 256)
    fill(first, 256)  # the program's own buffers
    before, counted = psutil.Process().memory_info().rss, pages.bytes_in_use
    fill(cache, 4096)
    grown, counted = psutil.Process().memory_info().rss - before, pages.bytes_in_use - counted
    assert counted == 32 * pages.page_bytes(0)
    assert grown < 1.05 * counted + (4 << 20)


def test_a_negative_bound_is_refused(tiny):
    with pytest.raises(UsageError, match="prefix_cache_bytes must be 0"):
        LLM(tiny("gemma3").gguf, prefix_cache_bytes=-1)
