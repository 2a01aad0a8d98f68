"""A tokenizer.json as tokenizers of the `tokenizers` library."""

from __future__ import annotations

from pathlib import Path

import tokenizers
from tokenizers import models

from outrider.errors import CheckpointError, memory_ran_out
from outrider.tokenizer.token_kinds import is_mark


def encoders_from_file(path: Path, written: str) -> tuple[tokenizers.Tokenizer, tokenizers.Tokenizer, frozenset[int]]:
    """(plain, special, hidden): the first encodes control tokens in a text as text, the second as tokens.

    Both share one model. `hidden` are the ids of control tokens: those that the file calls special, and those that the
    chat template writes.

    Args:
        written: what the chat template writes itself.

    Raises:
        CheckpointError: the file cannot be read, or its tokenizer is not byte-fallback BPE as Gemma's is.
    """
    try:
        special = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception
        if memory_ran_out(error):
            raise MemoryError(str(error)) from error
        raise CheckpointError(
            f"is not a tokenizer.json that can be read ({error})", path=path, remedy="Download the checkpoint again"
        ) from error
    if not isinstance(special.model, models.BPE) or not special.model.byte_fallback:
        raise CheckpointError(
            f"holds a tokenizer of the kind {type(special.model).__name__}, not Gemma's (BPE with byte fallback)",
            path=path,
            remedy="Use the tokenizer.json that belongs to the checkpoint",
        )
    if special.model.dropout:
        raise CheckpointError(
            "leaves out merges at random (dropout), so that a text has no certain ids",
            path=path,
            remedy="Use the tokenizer.json that was published with the checkpoint",
        )
    special.no_padding()  # settings of batches, which a file may hold
    special.no_truncation()
    plain = tokenizers.Tokenizer(special.model)
    if special.normalizer is not None:
        plain.normalizer = special.normalizer
    if special.pre_tokenizer is not None:
        plain.pre_tokenizer = special.pre_tokenizer
    added = sorted(special.get_added_tokens_decoder().items())
    hidden = frozenset(number for number, token in added if token.special or is_mark(token.content, written))
    plain.add_tokens([token for number, token in added if number not in hidden])
    return plain, special, hidden


def bos_of(special: tokenizers.Tokenizer) -> int | None:
    """The first token of the file's template, else `<bos>`; None if the vocabulary has neither."""
    template: list[int] = special.encode("", add_special_tokens=True).ids
    return template[0] if template else special.token_to_id("<bos>")
