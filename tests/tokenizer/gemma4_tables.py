"""Tables as a converted Gemma 4 holds them, from Gemma 3's: the same vocabulary, ranked by merges."""

from __future__ import annotations

import dataclasses

import numpy as np

from outrider.checkpoints import TokenizerTables
from outrider.tokenizer.token_kinds import BYTE, CONTROL, NORMAL, USER_DEFINED

CONTROL_TOKENS = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<start_of_turn>", "<end_of_turn>"]
USER_DEFINED_TOKENS = ["<start_of_image>", "<end_of_image>"]


def gemma4_tables(gemma3: TokenizerTables) -> TokenizerTables:
    """Gemma 4's files write spaces as U+2581, know a handful of control and user-defined tokens, and make all others,
    runs of spaces, newlines and tabs among them, by merging: 514,906 merges, exactly as many as come out here."""
    assert gemma3.token_types is not None
    tokens = [token.replace(" ", "▁") for token in gemma3.tokens]
    kinds = np.where(gemma3.token_types == BYTE, BYTE, NORMAL).astype(np.int32)
    kinds[[tokens.index(token) for token in CONTROL_TOKENS]] = CONTROL
    kinds[[tokens.index(token) for token in USER_DEFINED_TOKENS]] = USER_DEFINED
    merges = every_split([token for token, kind in zip(tokens, kinds, strict=True) if kind == NORMAL])
    return dataclasses.replace(gemma3, model="gemma4", tokens=tokens, token_types=kinds, scores=None, merges=merges)


def every_split(made: list[str]) -> list[str]:
    """Every way to make one of `made` out of two others, in the order of `made` (in Gemma, that of the scores)."""
    known = set(made)
    cuts = ((text[:at], text[at:]) for text in made for at in range(1, len(text)))
    return [f"{left} {right}" for left, right in cuts if left in known and right in known]
