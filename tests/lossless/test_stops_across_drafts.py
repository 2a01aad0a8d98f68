"""A stop text that lies across tokens of one draft, or across two, ends the answer where plain decoding would; so does
a stop token anywhere in a draft."""

from __future__ import annotations

import random
from contextlib import contextmanager
from dataclasses import replace

import pytest
from lossless.stand_in import StandInDrafter
from tiny_checkpoints import save_gguf
from word_tokenizer import speak_words

from outrider import LLM, SamplingParams

PROMPT = [5, 9, 200, 31, 77]
LENGTH = 24


@pytest.fixture(scope="module")
def llm(tiny, tmp_path_factory):
    # Of the tiny models, one whose greedy answer has many different tokens, and so many places for a stop text.
    path = save_gguf(tiny("gemma4-e2b").model, tmp_path_factory.mktemp("stops") / "tiny.gguf")
    made = LLM(path, drafter=None, lookup=False, threads=1, context=128)
    speak_words(made)
    return made


@contextmanager
def knowing(llm, answer):
    """Every draft is the known answer, and goes on past the stop."""
    stand_in = StandInDrafter(random.Random(0), llm.parts.target.vocabulary, 1.0)
    stand_in.know(PROMPT, answer)
    planner = llm.parts.engine.planner
    own, planner.drafters = planner.drafters, [stand_in]
    try:
        yield
    finally:
        planner.drafters = own


def params(stop, temperature, draft):
    return SamplingParams(
        max_tokens=LENGTH, temperature=temperature, seed=11, stop=stop, ignore_end=True, logprobs=0, draft=draft
    )


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("draft", [1, 3, 15])
def test_every_stop_text_at_every_place_of_a_right_draft(llm, temperature, draft):
    whole = llm.generate([PROMPT], params((), temperature, "off"))[0]
    pieces = [llm.tokenizer.piece(token).decode() for token in whole.token_ids]
    across = {pieces[at][-1:] + pieces[at + 1] + pieces[at + 2][:1] for at in range(LENGTH - 2)}
    accepted = 0
    for stop in sorted(across):
        plain = llm.generate([PROMPT], params((stop,), temperature, "off"))[0]
        assert plain.text == whole.text[: whole.text.index(stop)]
        assert plain.finish_reason == "stop"
        with knowing(llm, whole.token_ids):
            drafted = llm.generate([PROMPT], params((stop,), temperature, draft))[0]
            streamed = list(llm.stream(PROMPT, params((stop,), temperature, draft)))
        assert (drafted.text, drafted.token_ids, drafted.logprobs) == (plain.text, plain.token_ids, plain.logprobs)
        assert "".join(piece.text for piece in streamed) == plain.text
        assert streamed[-1].finish_reason == drafted.finish_reason == "stop"
        accepted += drafted.stats.accepted
    assert accepted > len(across)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("draft", [1, 3, 15])
def test_every_stop_token_at_every_place_of_a_right_draft(llm, temperature, draft):
    whole = llm.generate([PROMPT], params((), temperature, "off"))[0]
    accepted = 0
    for stop in sorted(set(whole.token_ids)):
        end = whole.token_ids.index(stop) + 1
        stopping = replace(params((), temperature, "off"), stop_token_ids=(stop,))
        plain = llm.generate([PROMPT], stopping)[0]
        assert plain.token_ids == whole.token_ids[:end]
        assert plain.text == "".join(llm.tokenizer.piece(token).decode() for token in plain.token_ids[:-1])
        assert plain.finish_reason == "stop"
        with knowing(llm, whole.token_ids):
            drafted = llm.generate([PROMPT], replace(stopping, draft=draft))[0]
            streamed = list(llm.stream(PROMPT, replace(stopping, draft=draft)))
        assert (drafted.text, drafted.token_ids, drafted.logprobs) == (plain.text, plain.token_ids, plain.logprobs)
        assert drafted.finish_reason == streamed[-1].finish_reason == "stop"
        assert "".join(piece.text for piece in streamed) == plain.text
        accepted += drafted.stats.accepted
    assert accepted > len(set(whole.token_ids)) // 2


@pytest.mark.parametrize("draft", ["off", 3])
def test_min_tokens_holds_back_stop_tokens(llm, draft):
    whole = llm.generate([PROMPT], params((), 0.0, "off"))[0]
    stop = whole.token_ids[2]
    held = replace(params((), 0.0, draft), stop_token_ids=[stop], min_tokens=8)
    with knowing(llm, whole.token_ids):
        tokens = llm.generate([PROMPT], held)[0].token_ids
    assert stop not in tokens[:8]
    assert len(tokens) > 8
