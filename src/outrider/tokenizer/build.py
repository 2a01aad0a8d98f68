"""A GGUF file's tokenizer tables as tokenizers of the `tokenizers` library."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import tokenizers
from tokenizers import AddedToken, models, normalizers

from outrider.checkpoints.tokenizer_tables import TokenizerTables
from outrider.errors import CheckpointError
from outrider.tokenizer.merges import merges_of
from outrider.tokenizer.token_kinds import USER_DEFINED, kinds_of

SPACE = "▁"


def encoders_from_tables(
    tables: TokenizerTables, hidden: frozenset[int]
) -> tuple[tokenizers.Tokenizer, tokenizers.Tokenizer]:
    """(plain, special): the first encodes control tokens in a text as text, the second as tokens. Both share one model.

    There are two because the library's own switch (`encode_special_tokens`) is a setting shared by all threads. The
    model is built from the vocabulary and the merges, in three quarters of the time that the library takes to load a
    tokenizer.json.

    Args:
        hidden: the ids of control tokens.

    Raises:
        CheckpointError: the tables are of an unknown algorithm, or incomplete.
    """
    with _no_collection():
        model = _model(tables)
    kinds = kinds_of(tables)
    user = [tables.tokens[token] for token in np.flatnonzero(kinds == USER_DEFINED) if token not in hidden]
    control = [tables.tokens[token] for token in sorted(hidden)]
    return _encoder(model, user, []), _encoder(model, user, control)


def _encoder(model: models.BPE, user: list[str], control: list[str]) -> tokenizers.Tokenizer:
    """An encoder that matches user-defined tokens (runs of newlines, HTML tags) first, in the unnormalized text."""
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.normalizer = normalizers.Replace(" ", SPACE)
    tokenizer.add_tokens([AddedToken(token, normalized=False, special=False) for token in user if token])
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in control if token])
    return tokenizer


def _model(tables: TokenizerTables) -> models.BPE:
    left, right = ([tables.tokens[token] for token in side] for side in merges_of(tables).T.tolist())
    vocabulary = {text: token for token, text in enumerate(tables.tokens)}
    unknown = None if tables.unknown_token_id is None else tables.tokens[tables.unknown_token_id]
    try:
        return models.BPE(
            vocabulary, list(zip(left, right, strict=True)), unk_token=unknown, fuse_unk=True, byte_fallback=True
        )
    except Exception as error:  # the library raises bare Exception
        raise CheckpointError(
            f"its tokenizer's merges do not fit its vocabulary ({error})", remedy="Convert the checkpoint again"
        ) from error


@contextmanager
def _no_collection() -> Iterator[None]:
    """Pause garbage collection: scanning a quarter of a million live tuples takes 0.1 s and frees nothing."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
