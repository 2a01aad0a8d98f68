from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from outrider.checkpoints import TokenizerTables, open_checkpoint
from outrider.tokenizer import Tokenizer, open_tokenizer


@pytest.fixture(scope="session")
def tables() -> TokenizerTables:
    found = open_checkpoint("demo").tokenizer
    assert isinstance(found, TokenizerTables)
    return found


@pytest.fixture(scope="session")
def tokenizer(tables: TokenizerTables) -> Tokenizer:
    return open_tokenizer(tables)


@pytest.fixture(scope="session")
def small_tables(tables: TokenizerTables) -> TokenizerTables:
    """The demo's first tokens and most frequent characters: quick to build."""
    assert tables.scores is not None
    assert tables.token_types is not None
    chosen = np.r_[0:3000, 236743:237243]
    return dataclasses.replace(
        tables,
        tokens=[tables.tokens[token] for token in chosen],
        scores=tables.scores[chosen],
        token_types=tables.token_types[chosen],
    )
