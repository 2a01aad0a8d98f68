"""The BPE merges of a vocabulary: one for each token that merging makes.

Gemma 4's files list 514,906 merges, every split of a token into two tokens, and SentencePiece's rule for Gemma 3 comes
to the same. But one merge a token is enough, 236,000 in all. Whatever surrounds a token in a text, once it has been
made no merge has crossed its ends, so inside of it the same merges were made in the same order as in a text of that
token alone; and the last of them, the one that makes the token, is the same one. The other splits never get their turn.
Without them every text has the same ids, and the model is built in 0.6 s of processor time instead of 1.0.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import numpy as np

from outrider.arrays import Ints
from outrider.checkpoints.tokenizer_tables import TokenizerTables
from outrider.errors import CheckpointError
from outrider.tokenizer import merge_cache
from outrider.tokenizer.token_kinds import NORMAL, UNUSED, kinds_of

_WORTH_KEEPING = 16384  # tokens; the merges of a smaller vocabulary are found sooner than read
_LONGEST = 256  # characters of a token; Gemma's longest has 31, and finding a merge takes the square of the length


def merges_of(tables: TokenizerTables) -> Ints:
    """(merges, 2) int32 ids (left, right), best first: from the cache, where Gemma's took two seconds to find.

    Raises:
        CheckpointError: the tables are of an unknown kind, or lack what their kind needs.
    """
    if len(tables.tokens) < _WORTH_KEEPING:
        return find_merges(tables)
    file = merge_cache.file_for(tables)
    kept = merge_cache.read(file, len(tables.tokens))
    if kept is not None:
        return kept
    found = find_merges(tables)
    merge_cache.write(file, found)
    return found


def find_merges(tables: TokenizerTables) -> Ints:
    """As `merges_of`, without the cache."""
    if tables.model == "llama":
        ranks = _ranks_by_score(tables)
        return _last_merges(tables, ranks, ranks, separator="")
    if tables.model == "gemma4":
        return _last_merges(tables, tables.tokens, _ranks_by_merge(tables), separator=" ")
    raise CheckpointError(
        f"its tokenizer is of the kind {tables.model!r}, and only Gemma's are supported ('llama' and 'gemma4')",
        remedy="Use a Gemma 3 or Gemma 4 checkpoint",
    )


def _last_merges(tables: TokenizerTables, texts: Iterable[str], ranks: dict[str, int], *, separator: str) -> Ints:
    """The merge that makes each of `texts` out of its characters, if one does.

    `ranks[left + separator + right]` is the rank of a merge; the best pair is joined, the leftmost of equals.
    """
    ids = {text: token for token, text in enumerate(tables.tokens)}
    never = len(ranks)
    ranked: list[tuple[int, int, int]] = []
    for text in texts:
        if len(text) > _LONGEST:
            raise CheckpointError(
                f"its tokenizer has a token of {len(text)} characters, and at most {_LONGEST} are supported",
                remedy="Use a Gemma 3 or Gemma 4 checkpoint that is not damaged",
            )
        parts = list(text)
        while len(parts) > 1:
            found = [ranks.get(left + separator + right, never) for left, right in pairwise(parts)]
            best = min(found)
            if best == never:
                break
            if len(parts) == 2 and parts[0] in ids and parts[1] in ids:
                ranked.append((best, ids[parts[0]], ids[parts[1]]))
            at = found.index(best)
            parts[at : at + 2] = [parts[at] + parts[at + 1]]
    ranked.sort()
    return np.array(ranked, np.int32).reshape(-1, 3)[:, 1:]


def _ranks_by_score(tables: TokenizerTables) -> dict[str, int]:
    """SentencePiece joins the adjacent pair whose whole has the best score.

    Control and byte tokens are never made by joining. User-defined ones never need to be: they are taken out of the
    text beforehand.
    """
    if tables.scores is None:
        raise CheckpointError(
            "its tokenizer is of the kind 'llama' but has no scores (tokenizer.ggml.scores)",
            remedy="Convert the checkpoint again",
        )
    kinds = kinds_of(tables)
    joined = np.flatnonzero((kinds == NORMAL) | (kinds == UNUSED))
    best_first = joined[np.argsort(-tables.scores[joined], kind="stable")]
    return {tables.tokens[token]: rank for rank, token in enumerate(best_first.tolist())}


def _ranks_by_merge(tables: TokenizerTables) -> dict[str, int]:
    """BPE joins the adjacent pair that comes first among the file's merges."""
    if tables.merges is None:
        raise CheckpointError(
            "its tokenizer is of the kind 'gemma4' but has no merges (tokenizer.ggml.merges)",
            remedy="Convert the checkpoint again",
        )
    known = set(tables.tokens)
    for merge in tables.merges:
        left, _, right = merge.partition(" ")
        if not {left, right, left + right} <= known:
            raise CheckpointError(
                f"its tokenizer has a merge that is not of two tokens into a third: {merge!r}",
                remedy="Convert the checkpoint again",
            )
    return {merge: rank for rank, merge in enumerate(tables.merges)}
