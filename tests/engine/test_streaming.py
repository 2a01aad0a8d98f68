"""A stream that is closed, or let go of, leaves no request behind, wherever it stands."""

from __future__ import annotations

import pytest

from outrider import LLM, SamplingParams
from outrider.errors import UsageError


@pytest.fixture(scope="module")
def llm(tiny, word_tokenizer):
    made = LLM(tiny("gemma4-dense").gguf, threads=1, context=256)
    word_tokenizer(made)
    return made


@pytest.mark.parametrize("pieces", [0, 1, 3])
@pytest.mark.parametrize("let_go", [lambda stream: stream.close(), lambda _: None], ids=["closed", "let go of"])
def test_its_request_ends_with_it(llm, pieces, let_go):
    stream = llm.stream([5, 6, 7] * 4, SamplingParams(max_tokens=40, ignore_end=True))
    for _ in range(pieces):
        next(stream)
    assert llm.parts.caches.in_use == 1
    let_go(stream)
    del stream
    assert llm.parts.caches.in_use == 0
    (output,) = llm.generate([[5, 6, 7] * 4], SamplingParams(max_tokens=4, ignore_end=True))
    assert output.stats.target_passes <= 4  # nobody else's rows were computed beside it


def test_a_prompt_that_cannot_be_is_refused_before_the_first_piece(llm):
    with pytest.raises(UsageError, match="outside the vocabulary"):
        llm.stream([10**9])
    assert llm.parts.caches.in_use == 0
