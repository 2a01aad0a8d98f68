"""Words for models with a tiny vocabulary."""

from __future__ import annotations

from outrider import LLM


def speak_words(llm: LLM) -> None:
    """Every id becomes one to three letters, and a space before them now and then; some share their text."""
    words = []
    for token in range(llm.target.vocabulary):
        letters = "abcdez"[token % 6] + ("" if token % 5 else "ab"[token % 2])
        words.append((" " if token % 7 == 0 else "") + letters)
    llm.tokenizer.piece = lambda token, **_: words[token].encode()  # type: ignore[method-assign]
