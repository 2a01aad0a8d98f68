"""The interface of what runs a program: every folder under `backends` implements it."""

from __future__ import annotations

from typing import Any, Protocol

from outrider.arrays import Floats, Ints


class Executor(Protocol):
    """Runs one program."""

    @property
    def max_rows(self) -> int:
        """Most rows of one pass."""

    @property
    def vocabulary(self) -> int:
        """Tokens that the program has embeddings and logits for."""

    def run(
        self,
        token: Ints,
        sequence: Ints,
        parent: Ints,
        outputs: Ints,
        caches: list[Any],
        logits: Floats | None = None,
        embeddings: tuple[Ints, Floats] | None = None,
        adapter: Ints | None = None,
    ) -> tuple[Ints, Floats]:
        """One pass; stages the rows in their caches.

        Args:
            token, sequence, parent: (rows,) int32. The rows of a sequence lie together; a parent is an earlier row of
                the same sequence, or -1 for the last committed token.
            outputs: rows whose choice is wanted, ascending.
            caches: by sequence number.
            logits: (outputs, vocabulary) float32, filled if given.
            embeddings: (rows,) int32, the index of a row's embedding or -1, and (n, width) float32. The token of such a
                row counts only where a table without `embeddings` is gathered from.
            adapter: (rows,) int32, the number of each row's adapter or -1; None if no row has one.

        Returns:
            The largest logit's token of each output, ties to the lower id, and that logit before softcap.
        """

    def read(self, buffer: str, rows: int) -> Floats:
        """A copy of a buffer's first rows after a pass, (rows, width) float32."""

    def write(self, buffer: str, values: Floats) -> None:
        """Fills a buffer's first rows before a pass: an input that is no token."""

    def chosen(self, rows: int, top_k: int) -> Ints:
        """The indices that the last Route chose for the first rows of the last pass, (rows, top_k) int32."""

    def prefetch_weights(self) -> None:
        """Prefetches the weights that every pass reads; may do nothing."""
