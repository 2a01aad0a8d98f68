"""The tokens that end an answer, gathered from all places where checkpoints name them."""

from __future__ import annotations

from collections.abc import Iterable

from outrider.tokenizer.tokenizer import Tokenizer

_GEMMAS = ("<eos>", "<end_of_turn>", "<turn|>", "<|tool_response>")
"""Gemma's own. Files of the same weights differ in which they name: as in llama.cpp, all are found by their text."""


def end_tokens(named: Iterable[int], tokenizer: Tokenizer, eos: str | None) -> tuple[int, ...]:
    """Ids of the tokens that end an answer, ascending.

    Args:
        named: ids that the settings name.
        eos: the text of the tokenizer's own end token, if it has one.
    """
    texts = _GEMMAS if eos is None else (*_GEMMAS, eos)
    found = {token for text in texts if (token := tokenizer.id_of(text)) is not None}
    return tuple(sorted({*named, *found}))
