"""What a stream reports of each token: whether it was drafted, and what was rejected in its place."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from outrider.engine.outputs import Piece
from outrider.tokenizer import StreamDecoder, Tokenizer


class DraftReport(BaseModel):
    """One entry per token.

    Together the `texts` run ahead of the answer's text where that holds back what may become a stop text. `sources`
    names the drafter of an accepted token. `rejected` is the drafted token that the target replaced.
    """

    token_ids: list[int]
    texts: list[str]
    drafted: list[bool]
    sources: list[str | None]
    rejected: list[int | None]
    rejected_texts: list[str | None]
    stats: dict[str, Any] | None = Field(default=None, exclude_if=lambda value: value is None)


class DraftReporter:
    """Reports on one answer, piece by piece."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer, self._decoder = tokenizer, StreamDecoder(tokenizer)

    def report(self, piece: Piece) -> DraftReport:
        """On the next piece."""
        return DraftReport(
            token_ids=list(piece.token_ids),
            texts=[self._decoder.push(token) for token in piece.token_ids],
            drafted=list(piece.drafted),
            sources=list(piece.sources),
            rejected=list(piece.rejected),
            rejected_texts=[None if token is None else self._text_of(token) for token in piece.rejected],
            stats=piece.stats.as_dict() if piece.stats else None,
        )

    def _text_of(self, token: int) -> str:
        return self._tokenizer.piece(token, skip_special=False).decode("utf-8", "replace")
