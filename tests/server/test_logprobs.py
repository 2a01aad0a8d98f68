"""Log-probabilities are the same in a stream and in a whole answer."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from outrider.sampling.logprobs import TokenLogprobs
from outrider.server.openai.logprobs import CompletionLogprobsWriter, chat_logprobs

BYTE, LETTER = 3, 3 + ord("a")  # as in json_tokenizer
EMOJI = [BYTE + byte for byte in "🙂".encode()]


def place(token, *others):
    top = tuple((other, -1.0 - number) for number, other in enumerate(others))
    return TokenLogprobs(token, -1.5, top)


def written(llm, places):
    return CompletionLogprobsWriter(llm.tokenizer).next(places).model_dump()


@given(
    tokens=st.lists(st.sampled_from([*EMOJI, LETTER, BYTE + 0xFF, 1, 260]), max_size=12),
    cuts=st.lists(st.integers(0, 12)),
)
def test_any_cut_gives_the_same_entries(json_llm, tokens, cuts):
    places = [place(token, LETTER, token) for token in tokens]
    whole = written(json_llm, places)
    writer = CompletionLogprobsWriter(json_llm.tokenizer)
    ends = sorted({min(cut, len(places)) for cut in cuts} | {len(places)})
    parts = [writer.next(places[begin:end]).model_dump() for begin, end in zip([0, *ends], ends, strict=False)]
    for name in ("tokens", "token_logprobs", "top_logprobs", "text_offset"):
        assert [entry for part in parts for entry in part[name]] == whole[name]


def test_chat_names_a_token_and_its_bytes(json_llm):
    (entry,) = chat_logprobs(json_llm.tokenizer, [place(EMOJI[0], LETTER)]).model_dump()["content"]
    top = {"token": "a", "logprob": -1.0, "bytes": [ord("a")]}
    assert entry == {"token": "\ufffd", "logprob": -1.5, "bytes": [0xF0], "top_logprobs": [top]}


def test_offsets_are_those_of_the_answers_text(json_llm):
    tokens = [LETTER, *EMOJI, LETTER, 1, LETTER]
    found = written(json_llm, [place(token) for token in tokens])
    text = json_llm.tokenizer.decode(tokens)
    assert text == "a🙂aa"
    assert found["text_offset"] == [0, 1, 1, 1, 1, 2, 3, 3]
    assert [found["tokens"][i] for i in (0, 1, 6)] == ["a", "bytes:\\xf0", "<eos>"]


def test_bytes_of_a_character_are_told_apart(json_llm):
    others = [BYTE + 0xF0, BYTE + 0xF1, LETTER]
    (top,) = written(json_llm, [place(LETTER, *others)])["top_logprobs"]
    assert top == {"bytes:\\xf0": -1.0, "bytes:\\xf1": -2.0, "a": -3.0}


def test_of_two_tokens_with_one_text_the_likelier_is_said(json_llm):
    twin = next(t for t in range(259, 400) if t != LETTER and json_llm.tokenizer.piece(t) == b"a")
    (top,) = written(json_llm, [place(LETTER, twin, LETTER)])["top_logprobs"]
    assert top == {"a": -1.0}


def test_never_is_a_number(json_llm):
    never = TokenLogprobs(LETTER, -float(np.inf), ())
    assert written(json_llm, [never])["token_logprobs"] == [-9999.0]
