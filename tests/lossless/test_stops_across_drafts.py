"""A stop text that lies across tokens of one draft, or across two, ends the answer where plain decoding would."""

from __future__ import annotations

import random

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
    own, accepted = llm.parts.engine.planner.drafters, 0
    for stop in sorted(across):
        plain = llm.generate([PROMPT], params((stop,), temperature, "off"))[0]
        assert plain.text == whole.text[: whole.text.index(stop)]
        assert plain.finish_reason == "stop"
        stand_in = StandInDrafter(random.Random(0), llm.parts.target.vocabulary, 1.0)
        stand_in.know(PROMPT, whole.token_ids)  # the drafts go on past the stop
        llm.parts.engine.planner.drafters = [stand_in]
        try:
            drafted = llm.generate([PROMPT], params((stop,), temperature, draft))[0]
            streamed = list(llm.stream(PROMPT, params((stop,), temperature, draft)))
        finally:
            llm.parts.engine.planner.drafters = own
        assert (drafted.text, drafted.token_ids, drafted.logprobs) == (plain.text, plain.token_ids, plain.logprobs)
        assert "".join(piece.text for piece in streamed) == plain.text
        assert streamed[-1].finish_reason == drafted.finish_reason == "stop"
        accepted += drafted.stats.accepted
    assert accepted > len(across)
