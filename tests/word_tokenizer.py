"""Words for models with a tiny vocabulary."""

from __future__ import annotations

from pathlib import Path

from tokenizers import AddedToken, Tokenizer, models, normalizers

from outrider import LLM


def speak_words(llm: LLM) -> None:
    """Every id becomes one to three letters, and a space before them now and then; some share their text."""
    words = []
    for token in range(llm.parts.target.vocabulary):
        letters = "abcdez"[token % 6] + ("" if token % 5 else "ab"[token % 2])
        words.append((" " if token % 7 == 0 else "") + letters)
    llm.tokenizer.piece = lambda token, **_: words[token].encode()  # type: ignore[method-assign]


def save_tokenizer(folder: Path, size: int = 512) -> Path:
    """A tokenizer.json of Gemma's kind with `size` tokens: bytes, and made-up words."""
    words = ["<pad>", "<eos>", "<bos>", "▁", "a", "b", "▁a", "ab"] + [f"<0x{byte:02X}>" for byte in range(256)]
    words += [f"w{number}" for number in range(size - len(words))]
    made = Tokenizer(models.BPE({w: i for i, w in enumerate(words)}, [("▁", "a"), ("a", "b")], byte_fallback=True))
    made.normalizer = normalizers.Replace(" ", "▁")
    made.add_special_tokens([AddedToken(word, normalized=False) for word in words[:3]])
    made.save(str(folder / "tokenizer.json"))
    return folder / "tokenizer.json"
