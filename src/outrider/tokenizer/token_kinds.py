"""What a token of a vocabulary is for, in GGUF's numbers."""

from __future__ import annotations

import numpy as np

from outrider.arrays import Ints
from outrider.checkpoints.tokenizer_tables import TokenizerTables

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6


def kinds_of(tables: TokenizerTables) -> Ints:
    """(vocab,) int32; without a table of them all tokens are normal."""
    if tables.token_types is None:
        return np.full(len(tables.tokens), NORMAL, np.int32)
    return tables.token_types
