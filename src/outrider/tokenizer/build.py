"""From a GGUF's tables to tokenizers of the `tokenizers` library."""

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
from outrider.tokenizer.token_kinds import CONTROL, UNKNOWN, USER_DEFINED, kinds_of

SPACE = "▁"


def encoders_from_tables(tables: TokenizerTables) -> tuple[tokenizers.Tokenizer, tokenizers.Tokenizer]:
    """The tokenizer that reads control tokens in a text as text, and the one that reads them as tokens.

    Both share one model. Two of them, because the library's own switch (`encode_special_tokens`) is a setting that a
    second thread would see too.

    The model is built anew each time, from the vocabulary and the merges: that takes three quarters of the time that
    the library takes to read its own file of the finished tokenizer.

    Raises:
        CheckpointError: the tables are of an unknown kind, or lack what their kind needs.
    """
    with _no_collection():
        model = _model(tables)
    kinds = kinds_of(tables)
    user = [tables.tokens[token] for token in np.flatnonzero(kinds == USER_DEFINED)]
    control = [tables.tokens[token] for token in np.flatnonzero((kinds == CONTROL) | (kinds == UNKNOWN))]
    return _encoder(model, user, []), _encoder(model, user, control)


def _encoder(model: models.BPE, user: list[str], control: list[str]) -> tokenizers.Tokenizer:
    """User-defined tokens (runs of newlines, HTML tags) match in the text as it is, before anything else."""
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
    """A quarter of a million tuples that all live on: looking for garbage among them costs 0.1 s and finds none."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
