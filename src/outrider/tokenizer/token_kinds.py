"""Kinds of token, numbered as in GGUF."""

from __future__ import annotations

import numpy as np

from outrider.arrays import Ints
from outrider.checkpoints.tokenizer_tables import TokenizerTables

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6


def kinds_of(tables: TokenizerTables) -> Ints:
    """(vocab,) int32; all normal if the tables list none."""
    if tables.token_types is None:
        return np.full(len(tables.tokens), NORMAL, np.int32)
    return tables.token_types


def is_mark(text: str, written: str) -> bool:
    """Whether an added token is one by which a chat template structures prompts: the template writes it itself.

    Converters declare some of Gemma 4's control tokens user-defined, so that other programs show them. Runs of
    whitespace are in every template, and are text.
    """
    return bool(text.strip()) and text in written
