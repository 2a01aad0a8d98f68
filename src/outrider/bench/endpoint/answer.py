"""One request as its client saw it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class FailureKind(StrEnum):
    """Why there is no answer."""

    REFUSED = "refused"
    """429: the server has enough to do."""
    REJECTED = "rejected"
    """Another 4xx: the request itself."""
    SERVER_ERROR = "server error"
    """5xx, or an error within the stream."""
    UNREACHABLE = "unreachable"
    """No connection, or one that broke before the answer began."""
    TIMEOUT = "timeout"
    """Nothing came for too long."""
    CUT_OFF = "cut off"
    """The stream ended in the middle."""
    MALFORMED = "malformed"
    """What came is not what OpenAI's API sends."""


@dataclass(frozen=True)
class Failure:
    """A request that failed.

    status: HTTP's, where there was one.
    message: of the server, or of the connection.
    """

    kind: FailureKind
    message: str
    status: int | None = None


@dataclass(frozen=True)
class DraftCounts:
    """What was drafted, in whole numbers that only grow.

    passes: target passes that verified a draft or could have; None where the server does not count them.
    """

    drafted: float
    accepted: float
    passes: float | None

    def __add__(self, other: DraftCounts) -> DraftCounts:
        return self._with(other, 1)

    def __sub__(self, other: DraftCounts) -> DraftCounts:
        return self._with(other, -1)

    def _with(self, other: DraftCounts, sign: int) -> DraftCounts:
        known = self.passes is not None and other.passes is not None
        return DraftCounts(
            self.drafted + sign * other.drafted,
            self.accepted + sign * other.accepted,
            (self.passes or 0) + sign * (other.passes or 0) if known else None,
        )


@dataclass(frozen=True)
class Answer:
    """One request that ended.

    number: its place in its level; requests of the same number have the same prompt in both arms.
    text: the answer, whole unless it failed.
    tokens: of the answer, by the server's own count, or by the chunks that had text.
    counted_by_server: which of the two.
    first_seconds: from sending the request to the first text; None if there was none.
    last_seconds: from sending the request to the last text.
    chunks: that had text.
    draft: what the response says of drafting, if it does.
    failure: None if all went well.
    """

    number: int
    text: str = ""
    tokens: int = 0
    counted_by_server: bool = False
    first_seconds: float | None = None
    last_seconds: float = 0.0
    chunks: int = 0
    draft: DraftCounts | None = None
    failure: Failure | None = None

    @property
    def seconds_per_token(self) -> float | None:
        """Time per output token after the first; None if the answer came at once, so that there is nothing to see."""
        if self.first_seconds is None or self.tokens < 2 or self.chunks < 2:
            return None
        return (self.last_seconds - self.first_seconds) / (self.tokens - 1)
