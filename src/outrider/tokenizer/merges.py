"""The BPE merges of a vocabulary: one for each token that merging makes.

Gemma 4's files list 514,906 merges, every split of a token into two tokens, and SentencePiece's rule for Gemma 3
implies as many. One merge per token is enough, 236,000 in all. When BPE has produced a token in any text, no merge has
crossed its ends. So the merges inside it are the same, in the same order, as in a text of that token alone, and the
last one, which produces the token, is always the same. The other splits are never applied: without them every text has
the same ids, and the model is built in 0.6 s of processor time instead of 1.0.
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

_WORTH_KEEPING = 16384  # tokens; for a smaller vocabulary finding the merges is faster than reading them
_LONGEST = 256  # characters of a token; Gemma's longest has 31, and time grows with the square of the length


def merges_of(tables: TokenizerTables) -> Ints:
    """(merges, 2) int32 ids (left, right), best first; cached on disk, because Gemma's take two seconds to find.

    Raises:
        CheckpointError: the tables are of an unknown algorithm, or incomplete.
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
    """The last merge of each of `texts`, of those that BPE produces from their characters.

    `ranks[left + separator + right]` is the rank of a merge. BPE joins the pair of lowest rank, the leftmost of equals.
    """
    ids = {text: token for token, text in enumerate(tables.tokens)}
    never = len(ranks)
    ranked: list[tuple[int, int, int]] = []
    for text in texts:
        if len(text) > _LONGEST:
            raise CheckpointError(
                f"its tokenizer has a token of {len(text)} characters; at most {_LONGEST} are supported",
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
    """Rank by token: SentencePiece joins the adjacent pair whose joined token has the best score.

    Merges never produce control and byte tokens, nor user-defined ones, which are matched in the text beforehand.
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
    """Rank by merge: BPE joins the adjacent pair that is listed first."""
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
