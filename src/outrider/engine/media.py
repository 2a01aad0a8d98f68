"""Prompt rows that carry an embedding in place of a token: images and recordings, encoded before the request begins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from outrider.arrays import Floats
from outrider.cache import MediumRows


@dataclass(frozen=True, eq=False)
class Medium:
    """One medium of a prompt, on consecutive rows. The prompt's tokens at these rows are placeholders.

    Attributes:
        first: position of its first row.
        embeddings: (rows, hidden_size) float32, scaled as the target's own.
        digest: hash of all that the embeddings depend on: the whole medium and how it was encoded. The prefix cache
            compares it in place of the embeddings.
    """

    first: int
    embeddings: Floats
    digest: bytes

    @property
    def key(self) -> MediumRows:
        """What the prefix cache compares."""
        return MediumRows(self.first, len(self.embeddings), self.digest)


def check_media(media: Sequence[Medium], prompt_length: int, hidden_size: int) -> None:
    """That media fit a prompt.

    Raises:
        ValueError: one lies outside the prompt or overlaps the one before it, or its embeddings have another width.
    """
    end = 0
    for medium in media:
        if medium.embeddings.ndim != 2 or medium.embeddings.shape[1] != hidden_size:
            raise ValueError(f"embeddings must be (rows, {hidden_size}), not {medium.embeddings.shape}")
        if medium.first < end:
            raise ValueError(f"the medium at position {medium.first} begins before the one before it ends, at {end}")
        end = medium.first + len(medium.embeddings)
        if end > prompt_length:
            raise ValueError(f"the medium at position {medium.first} ends at {end}, behind a prompt of {prompt_length}")


def embeddings_within(media: Sequence[Medium], begin: int, end: int) -> list[tuple[int, Floats]]:
    """The embeddings of positions `begin` to `end`, as runs: the first row (0 is `begin`) and its embeddings."""
    found = []
    for medium in media:
        first, stop = max(medium.first, begin), min(medium.first + len(medium.embeddings), end)
        if first < stop:
            found.append((first - begin, medium.embeddings[first - medium.first : stop - medium.first]))
    return found
