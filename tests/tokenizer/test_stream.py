from __future__ import annotations

from itertools import chain

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from texts import TEXTS

from outrider.errors import UsageError
from outrider.tokenizer import StreamDecoder
from outrider.tokenizer.stream import partial_match

BYTE = 238  # the id of <0x00>


def token_ids():
    """Any tokens, with many byte tokens, whole and broken characters, and control tokens among them."""
    byte = st.integers(BYTE, BYTE + 255)
    continuation = st.integers(BYTE + 0x80, BYTE + 0xBF)
    character = st.characters().map(lambda c: [BYTE + byte for byte in c.encode("utf-8", "replace")])
    control = st.sampled_from([0, 1, 2, 3, 4, 105, 106, 262143])
    one = st.one_of(st.integers(0, 262143), byte, continuation, control).map(lambda token: [token])
    return st.lists(st.one_of(one, character), max_size=40).map(lambda parts: list(chain(*parts)))


@given(ids=token_ids(), skip_special=st.booleans())
@settings(max_examples=500, deadline=None)
def test_a_stream_gives_exactly_the_decoded_text(tokenizer, ids, skip_special):
    stream = StreamDecoder(tokenizer, skip_special=skip_special)
    parts = [stream.push(token) for token in ids]
    assert "".join(parts) + stream.flush() == tokenizer.decode(ids, skip_special=skip_special)


@pytest.mark.parametrize("text", TEXTS)
def test_a_stream_of_a_text_never_shows_half_a_character(tokenizer, text):
    stream = StreamDecoder(tokenizer)
    shown = ""
    for token in tokenizer.encode(text):
        shown += stream.push(token)
        assert text.replace("▁", " ").startswith(shown)
    assert stream.flush() == ""


def test_a_character_over_several_tokens_comes_out_whole_with_the_last(tokenizer):
    ids = tokenizer.encode("\U000e0001", add_bos=False)
    assert len(ids) == 4
    stream = StreamDecoder(tokenizer)
    assert [stream.push(token) for token in ids] == ["", "", "", "\U000e0001"]


def test_an_unfinished_character_is_replaced_when_it_is_certain_to_stay_so(tokenizer):
    stream = StreamDecoder(tokenizer)
    assert [stream.push(BYTE + 0xE2), stream.push(BYTE + 0x82)] == ["", ""]
    assert stream.push(236746) == "��a"
    assert stream.push(BYTE + 0xE2) == ""
    assert stream.flush() == "�"


def test_an_id_outside_the_vocabulary_is_refused(tokenizer):
    with pytest.raises(UsageError, match="token id 262144 is outside the vocabulary"):
        StreamDecoder(tokenizer).push(262144)


@given(text=st.text("ab<", max_size=12), marks=st.lists(st.text("ab<", max_size=5), max_size=3))
def test_what_is_held_back_may_become_a_mark(text, marks):
    beginnings = {mark[:length] for mark in marks for length in range(len(mark))}
    assert partial_match(text, marks) == max((len(b) for b in beginnings if text.endswith(b)), default=0)
