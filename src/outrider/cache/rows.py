"""What the prefix cache compares: the rows of a sequence, position by position."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import NamedTuple

Row = int | tuple[int, bytes, int, int]
"""A token; or, of a row that carries an embedding, its placeholder, the digest of its medium, its index in it and the
medium's number of rows."""


class MediumRows(NamedTuple):
    """Rows of one medium; `digest` is the hash of all that their embeddings depend on."""

    first: int
    rows: int
    digest: bytes


def rows_between(tokens: Sequence[int], media: Sequence[MediumRows], begin: int, end: int) -> tuple[Row, ...]:
    """The rows of positions `begin` to `end`, or to the last token."""
    rows: list[Row] = list(tokens[begin:end])
    for first, count, digest in media:
        for position in range(max(first, begin), min(first + count, begin + len(rows))):
            rows[position - begin] = (tokens[position], digest, position - first, count)
    return tuple(rows)


def common(one: Sequence[Row], other: Sequence[Row]) -> int:
    """The number of equal rows that both begin with."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def outside_media(length: int, media: Sequence[MediumRows]) -> int:
    """`length`, or less: a prefix does not end within a medium, whose rows may attend to each other both ways."""
    return next((first for first, count, _ in media if first < length < first + count), length)
