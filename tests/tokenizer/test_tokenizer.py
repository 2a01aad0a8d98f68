from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from texts import CONTROL_IN_TEXT, TEXTS
from tokenizers import AddedToken, models, processors
from word_tokenizer import save_tokenizer

from outrider.errors import CheckpointError, UsageError
from outrider.tokenizer import Tokenizer, open_tokenizer

CONTROL_IDS = {*range(5), 105, 106}


@pytest.mark.parametrize("text", TEXTS)
def test_text_survives_the_round_trip(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text)) == text.replace("▁", " ")


@given(text=st.text())
@settings(max_examples=300, deadline=None)
def test_any_text_survives_the_round_trip(tokenizer, text):
    """But for U+2581, which is how this vocabulary writes a space."""
    assert tokenizer.decode(tokenizer.encode(text)) == text.replace("▁", " ")


def test_half_a_surrogate_pair_is_a_replacement_character_and_a_whole_one_its_character(tokenizer):
    assert tokenizer.encode("a\ud83d\ude00") == tokenizer.encode("a😀")
    assert tokenizer.encode("a\ud83d b\udc80") == tokenizer.encode("a\ufffd b\ufffd")


@pytest.mark.parametrize("text", CONTROL_IN_TEXT)
def test_special_tokens_in_text_are_text_unless_asked_for(tokenizer, text):
    ids = tokenizer.encode(text, add_bos=False)
    assert not set(ids) & CONTROL_IDS
    assert tokenizer.decode(ids) == text


def test_special_tokens_are_tokens_where_asked_for(tokenizer):
    assert tokenizer.encode("<bos>x<eos>", add_bos=False, parse_special=True)[::2] == [2, 1]
    turn = tokenizer.encode("<start_of_turn>user\nhi<end_of_turn>", parse_special=True)
    assert turn == [2, 105, *tokenizer.encode("user\nhi", add_bos=False), 106]
    assert tokenizer.decode(turn) == "user\nhi"
    assert tokenizer.decode(turn, skip_special=False) == "<bos><start_of_turn>user\nhi<end_of_turn>"


def test_threads_that_read_special_tokens_differently_do_not_disturb_each_other(tokenizer):
    text = "<bos>x<eos> " * 50
    expected = {special: tokenizer.encode(text, parse_special=special) for special in (False, True)}
    assert expected[False] != expected[True]
    with ThreadPoolExecutor(4) as pool:
        asked = [bool(number % 2) for number in range(400)]
        for special, ids in zip(asked, pool.map(lambda s: tokenizer.encode(text, parse_special=s), asked), strict=True):
            assert ids == expected[special]


def test_user_defined_tokens_match_always(tokenizer):
    for special in (False, True):
        assert tokenizer.encode("\n\n\n<h1>", add_bos=False, parse_special=special) == [109, 184]


def test_a_text_begins_with_bos_where_the_model_wants_one(small_tables, tokenizer):
    assert tokenizer.encode("x") == [2, *tokenizer.encode("x", add_bos=False)]
    assert tokenizer.encode("") == [2]
    without = Tokenizer.from_tables(dataclasses.replace(small_tables, add_bos=False))
    assert without.encode("") == []


def test_the_space_prefix_is_put_in_front_where_the_file_asks_for_it(small_tables):
    plain = Tokenizer.from_tables(small_tables)
    prefixed = Tokenizer.from_tables(dataclasses.replace(small_tables, add_space_prefix=True))
    for text in ("the and", " the", "\nthe"):
        assert prefixed.encode(text) == plain.encode(" " + text)
    assert prefixed.encode("") == plain.encode("")


def test_every_byte_without_a_character_is_a_replacement_character(tokenizer):
    """As SentencePiece decodes: one for each byte, not one for each broken sequence."""
    first, *rest = (238 + byte for byte in "€".encode())
    assert tokenizer.decode([first, *rest]) == "€"
    assert tokenizer.decode([first, rest[0]]) == "��"
    assert tokenizer.decode([first, rest[0], 236746]) == "��a"
    assert tokenizer.decode([238 + 0xFF, first, *rest, rest[0]]) == "�€�"


@pytest.mark.parametrize("token", [-1, 262144, 2**40])
def test_an_id_outside_the_vocabulary_is_refused(tokenizer, token):
    assert tokenizer.vocab_size == 262144
    with pytest.raises(UsageError, match=f"token id {token} is outside the vocabulary of 262144 tokens"):
        tokenizer.decode([token])


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"model": "gpt2"}, "is of the kind 'gpt2'"),
        ({"scores": None}, "of the kind 'llama' but has no scores"),
        ({"model": "gemma4"}, "of the kind 'gemma4' but has no merges"),
        ({"model": "gemma4", "merges": ["ab"]}, "a merge that is not of two tokens into a third: 'ab'"),
        ({"model": "gemma4", "merges": ["h neverheard"]}, "not of two tokens into a third: 'h neverheard'"),
    ],
)
def test_tables_that_make_no_tokenizer_are_refused_by_name(small_tables, tmp_path, changes, problem):
    with pytest.raises(CheckpointError, match=rf"model\.gguf: its tokenizer.*{problem}.*\. [A-Z].*\.$"):
        open_tokenizer(dataclasses.replace(small_tables, **changes), path=tmp_path / "model.gguf")


def test_a_token_of_absurd_length_is_refused_before_time_is_spent_on_it(small_tables, tmp_path):
    """Finding its merge takes the square of its length, which is seconds for 8,000 characters already."""
    tokens = [*small_tables.tokens[:-1], "a" * 1_000_000]
    with pytest.raises(CheckpointError, match=r"model\.gguf: its tokenizer has a token of 1000000 characters"):
        open_tokenizer(dataclasses.replace(small_tables, tokens=tokens), path=tmp_path / "model.gguf")


@pytest.fixture
def json_file(tmp_path):
    """A tokenizer.json of Gemma's kind, with a few words."""
    words = ["<pad>", "<bos>", "<eos>", "▁", "a", "b", "▁a", "ab", "\n\n"] + [f"<0x{byte:02X}>" for byte in range(256)]
    vocabulary = {word: number for number, word in enumerate(words)}
    made = tokenizers.Tokenizer(models.BPE(vocabulary, [("▁", "a"), ("a", "b")], byte_fallback=True))
    made.normalizer = tokenizers.normalizers.Replace(" ", "▁")
    made.add_special_tokens([AddedToken(word, normalized=False) for word in ("<pad>", "<bos>", "<eos>")])
    made.add_tokens([AddedToken("\n\n", normalized=False)])
    made.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 1)])
    made.enable_padding(length=32)
    made.enable_truncation(4)
    made.save(str(tmp_path / "tokenizer.json"))
    return tmp_path / "tokenizer.json"


def test_a_tokenizer_json_is_read(json_file):
    tokenizer = open_tokenizer(json_file)
    assert tokenizer.vocab_size == 265
    assert tokenizer.encode("ab a\n\n") == [1, 7, 6, 8]
    assert tokenizer.encode("<eos>a", parse_special=True) == [1, 2, 4]
    assert tokenizer.encode("<eos>", add_bos=False) == [9 + byte if byte not in b"ab" else 4 for byte in b"<eos>"]
    assert tokenizer.encode("ab" * 20, add_bos=False) == [7] * 20
    assert tokenizer.decode([1, 7, 6, 8, *(9 + byte for byte in "é".encode()), 2]) == "ab a\n\né"


def test_a_broken_tokenizer_json_is_refused(json_file):
    json_file.write_bytes(json_file.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=r"tokenizer\.json: is not a tokenizer\.json that can be read"):
        open_tokenizer(json_file)
    json_file.unlink()
    with pytest.raises(CheckpointError, match=r"tokenizer\.json: is not a tokenizer\.json that can be read"):
        open_tokenizer(json_file)


def test_a_tokenizer_json_of_another_kind_is_refused(json_file):
    tokenizers.Tokenizer(models.WordLevel({"a": 0}, unk_token="a")).save(str(json_file))
    with pytest.raises(CheckpointError, match=r"holds a tokenizer of the kind WordLevel, not Gemma's"):
        open_tokenizer(json_file)


def test_no_text_has_fewer_tokens_than_is_said_without_encoding(tokenizer):
    longest = max((tokenizer.piece(token).decode("utf-8", "replace") for token in range(tokenizer.vocab_size)), key=len)
    for text in ("", "a", "ab " * 50, longest, longest * 7, " " * 200, "🙂" * 40, *TEXTS):
        assert tokenizer.fewest_tokens(text) <= len(tokenizer.encode(text, add_bos=False))
    assert tokenizer.fewest_tokens(longest * 7) > 1


def test_texts_that_were_encoded_are_not_kept(tmp_path):
    """A server encodes others' prompts for months: they must not stay in memory."""
    tokenizer = Tokenizer.from_file(save_tokenizer(tmp_path))

    def resident():
        return psutil.Process().memory_info().rss

    def encode(begin, end):
        for number in range(begin, end):
            tokenizer.encode(f"text {number:<9}" + "abcd" * 40)

    encode(0, 500)
    before = resident()
    encode(500, 8500)
    assert resident() - before < 2 << 20
