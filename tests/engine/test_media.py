"""Prompts with rows that carry embeddings: what the prefix cache shares, and that chunks and drafts change nothing."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import pytest
from tiny_checkpoints import VOCAB

from outrider import LLM, SamplingParams
from outrider.engine.media import Medium

ROWS = 12
SETTINGS = SamplingParams(max_tokens=10, ignore_end=True, logprobs=1, draft="off")


@pytest.fixture(scope="module", params=["gemma3", "gemma4-e2b"])
def llm(request, tiny):
    return LLM(tiny(request.param).gguf, threads=2, context=256)


def medium(llm, first, seed, rows=ROWS):
    embeddings = np.random.default_rng(seed).normal(size=(rows, llm.config.hidden_size)).astype(np.float32)
    return Medium(first, embeddings, hashlib.sha256(embeddings.tobytes()).digest())


def prompt_of(*media, length=60):
    """Text with placeholders where the media stand."""
    tokens = [3 + 7 * n % (VOCAB - 10) for n in range(length)]
    for one in media:
        tokens[one.first : one.first + len(one.embeddings)] = [0] * len(one.embeddings)
    return tokens


def answer(llm, prompt, *media, params=SETTINGS):
    request = llm.parts.engine.add(prompt, params, media)
    while not request.ended:
        llm.parts.engine.step()
    return request.output()


def alone(llm, prompt, *media):
    return answer(llm, prompt, *media, params=replace(SETTINGS, cache_prompt=False))


def same(one, other):
    return (one.token_ids, one.logprobs) == (other.token_ids, other.logprobs)


def test_equal_tokens_with_different_media_do_not_share(llm):
    asked = [(medium(llm, 40, seed=1),), (medium(llm, 40, seed=2),), ()]
    prompt = prompt_of(*asked[0])
    expected = [alone(llm, prompt, *media) for media in asked]
    assert len({out.logprobs for out in expected}) == 3
    for kept in asked:
        for media, wanted in zip(asked, expected, strict=True):
            llm.parts.caches.clear()
            answer(llm, prompt, *kept)
            found = answer(llm, prompt, *media)
            assert same(found, wanted)
            assert found.stats.reused_tokens == (59 if media == kept else 40)


def test_the_digest_decides_and_not_the_embeddings(llm):
    llm.parts.caches.clear()
    image = medium(llm, 40, seed=1)
    answer(llm, prompt_of(image), image)
    assert answer(llm, prompt_of(image), replace(image, digest=b"other")).stats.reused_tokens == 40
    assert answer(llm, prompt_of(image), replace(image, digest=b"other")).stats.reused_tokens == 59


def test_media_are_shared_up_to_the_first_that_differs(llm):
    llm.parts.caches.clear()
    first, second, third = medium(llm, 5, seed=1), medium(llm, 40, seed=2), medium(llm, 40, seed=3)
    prompt = prompt_of(first, second)
    answer(llm, prompt, first, second)
    found = answer(llm, prompt, first, third)
    assert found.stats.reused_tokens == 40
    assert same(found, alone(llm, prompt, first, third))
    moved = replace(second, first=41)  # the same medium one row later: no row of it has the same index
    found = answer(llm, prompt_of(first, second), first, moved)
    assert found.stats.reused_tokens == 40
    assert same(found, alone(llm, prompt, first, moved))
    shorter = replace(second, embeddings=second.embeddings[:-1])
    assert answer(llm, prompt, first, shorter).stats.reused_tokens == 40


def test_a_prefix_never_ends_within_a_medium(llm, monkeypatch):
    """Whether the kept sequence ends there, as after a cancellation, or the new prompt."""
    monkeypatch.setattr(llm.parts.engine, "chunk", 8)
    image = medium(llm, 35, seed=4)
    prompt = prompt_of(image)
    expected = alone(llm, prompt, image)
    llm.parts.caches.clear()
    request = llm.parts.engine.add(prompt, SETTINGS, [image])
    for _ in range(5):
        llm.parts.engine.step()
    assert request.sequence.cache.length == 40
    llm.parts.engine.cancel(request)
    found = answer(llm, prompt, image)
    assert (found.stats.reused_tokens, same(found, expected)) == (35, True)
    ending = prompt[: 35 + ROWS]  # its last row has to be computed, so the whole image is
    llm.parts.caches.clear()
    first, again = (answer(llm, ending, image, params=replace(SETTINGS, max_tokens=2)) for _ in range(2))
    assert (first.stats.reused_tokens, again.stats.reused_tokens, same(first, again)) == (0, 35, True)


def test_equal_sequences_are_kept_once(llm):
    llm.parts.caches.clear()
    for seed, kept in ((1, 1), (1, 1), (2, 2), (2, 2)):
        short = medium(llm, 1, seed, rows=2)
        answer(llm, prompt_of(short, length=4), short)
        assert llm.parts.caches.kept == kept


@pytest.mark.parametrize("chunk", [5, 16, 256])
def test_chunks_batches_and_drafts_change_nothing(llm, chunk, monkeypatch):
    monkeypatch.setattr(llm.parts.engine, "chunk", chunk)
    media = [medium(llm, 3, seed=5), medium(llm, 3 + ROWS, seed=6), medium(llm, 45, seed=7)]
    prompt = prompt_of(*media)
    expected = alone(llm, prompt, *media)
    drafting = replace(SETTINGS, cache_prompt=False, draft=3)
    jobs = [(prompt, media), (prompt_of(length=30), ()), (prompt, media), (prompt_of(media[0]), media[:1])]
    requests = [llm.parts.engine.add(list(tokens), drafting, given) for tokens, given in jobs]
    while not all(request.ended for request in requests):
        llm.parts.engine.step()
    outputs = [request.output() for request in requests]
    assert same(outputs[0], expected)
    assert same(outputs[2], expected)
    assert same(outputs[1], alone(llm, jobs[1][0]))
    assert same(outputs[3], alone(llm, jobs[3][0], media[0]))


def test_finished_sequences_keep_no_embeddings(llm):
    llm.parts.caches.clear()
    image = medium(llm, 5, seed=1)
    answer(llm, prompt_of(image), image)
    (kept,) = llm.parts.caches.tree
    assert kept.rows[5 : 5 + ROWS] == tuple((0, image.digest, index, ROWS) for index in range(ROWS))
    assert not any(isinstance(value, np.ndarray) for value in vars(kept).values())


def test_media_that_do_not_fit_are_refused(llm):
    prompt, width = prompt_of(), llm.config.hidden_size
    wide = Medium(3, np.zeros((2, width + 1), np.float32), b"")
    for media, problem in (
        ([wide], rf"embeddings must be \(rows, {width}\), not \(2, {width + 1}\)"),
        ([medium(llm, 55, 1)], "the medium at position 55 ends at 67, behind a prompt of 60"),
        ([medium(llm, 5, 1), medium(llm, 16, 1)], "at position 16 begins before the one before it ends, at 17"),
    ):
        with pytest.raises(ValueError, match=problem):
            llm.parts.engine.add(prompt, SETTINGS, media)
    assert llm.parts.caches.in_use == 0
