"""A tiny vocabulary that can write any text: every byte, and pieces of JSON, some of which overlap."""

from __future__ import annotations

import re

from outrider import LLM

SPECIAL = ("<|tool_call>", "<tool_call|>", '<|"|>', "<|channel>", "<channel|>")
_PIECES = ['{"', '":', '": ', '", "', '","', '"}', "true", "false", "null", "[[", "]]", "12", "0.5", ", ", "\n  ", "}}"]
_WORDS = ["name", '"name"', "age", '"age":', "a", "ab", "abc", "bc", '"a', 'b"', "x", "call:", "thought\n"]


def speak_json(llm: LLM) -> None:
    """Ids 3 to 258 are the bytes; control tokens and pieces of JSON follow, then pairs of letters."""
    texts = [text.encode() for text in (*SPECIAL, *_PIECES, *_WORDS)]
    pairs = [bytes([a, b]) for a in b"abcdefghij01 " for b in b"abcdefghij012345"]
    words = [b"<pad>", b"<eos>", b"<bos>", *(bytes([i]) for i in range(256)), *texts, *pairs]
    words = words[: llm.parts.target.vocabulary]
    tokenizer = llm.tokenizer
    tokenizer.hidden = frozenset([0, 1, 2, *range(259, 259 + len(SPECIAL))])
    tokenizer.vocab_size = len(words)
    llm.parts.grammars._words, llm.parts.grammars._special = len(words), sorted(tokenizer.hidden)
    tokenizer._special_ids = {text: 259 + i for i, text in enumerate(SPECIAL)}

    def piece(token: int, *, skip_special: bool = True) -> bytes:
        return b"" if token >= len(words) or (skip_special and token in tokenizer.hidden) else words[token]

    def encode(text: str, *, add_bos: bool = True, parse_special: bool = False) -> list[int]:
        parts = re.split("(" + "|".join(map(re.escape, SPECIAL)) + ")", text) if parse_special else [text]
        ids = [2] if add_bos else []
        for part in parts:
            special = parse_special and part in SPECIAL
            ids += [259 + SPECIAL.index(part)] if special else [3 + byte for byte in part.encode()]
        return ids

    tokenizer.piece = piece  # type: ignore[method-assign]
    tokenizer.encode = encode  # type: ignore[method-assign]
