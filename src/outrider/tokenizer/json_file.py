"""A tokenizer.json as tokenizers of the `tokenizers` library."""

from __future__ import annotations

from pathlib import Path

import tokenizers
from tokenizers import models

from outrider.errors import CheckpointError


def encoders_from_file(path: Path) -> tuple[tokenizers.Tokenizer, tokenizers.Tokenizer]:
    """(plain, special): the first encodes special tokens in a text as text, the second as tokens. Both share one model.

    Raises:
        CheckpointError: the file cannot be read, or its tokenizer is not byte-fallback BPE as Gemma's is.
    """
    try:
        special = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception
        raise CheckpointError(
            f"is not a tokenizer.json that can be read ({error})", path=path, remedy="Download the checkpoint again"
        ) from error
    if not isinstance(special.model, models.BPE) or not special.model.byte_fallback:
        raise CheckpointError(
            f"holds a tokenizer of the kind {type(special.model).__name__}, not Gemma's (BPE with byte fallback)",
            path=path,
            remedy="Use the tokenizer.json that belongs to the checkpoint",
        )
    special.no_padding()  # settings of batches, which a file may hold
    special.no_truncation()
    plain = tokenizers.Tokenizer(special.model)
    if special.normalizer is not None:
        plain.normalizer = special.normalizer
    if special.pre_tokenizer is not None:
        plain.pre_tokenizer = special.pre_tokenizer
    added = [token for _, token in sorted(special.get_added_tokens_decoder().items())]
    plain.add_tokens([token for token in added if not token.special])
    return plain, special


def bos_of(special: tokenizers.Tokenizer) -> int | None:
    """The first token of the file's template, else `<bos>`; None if the vocabulary has neither."""
    template: list[int] = special.encode("", add_special_tokens=True).ids
    return template[0] if template else special.token_to_id("<bos>")
