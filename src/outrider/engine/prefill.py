"""How many prompt rows a pass takes in while other requests wait for their next token.

A prompt alone is computed in full chunks. Beside requests that decode, its rows may take as long as the pass would take
without them, and no longer: prompts and decoding then have equal parts of the time, and a token never takes more than
twice what it takes when no prompt is there. How many rows that is follows from what passes were measured to cost.
"""

from __future__ import annotations

from collections.abc import Sequence

from outrider.speculation.costs import VerifyCost

_MEMORY = 0.8


class PromptShare:
    """The rows that prompts get, learnt from the passes that had some.

    Args:
        cost: seconds of a pass by rows, as measured at load: what a prompt row costs until one was seen.
    """

    def __init__(self, cost: VerifyCost) -> None:
        first, last = cost.rows[0], cost.rows[-1]
        self._rows = float(last - first)
        self._seconds = cost.seconds[-1] - cost.seconds[0]
        self._seen = last // 2

    def rows(self, decoding_seconds: float) -> int:
        """Prompt rows beside rows that take `decoding_seconds` by themselves; at least one, so that prompts end.

        At most twice as many as were ever seen in a pass, since a line drawn far beyond what was measured is a guess.
        """
        most = 2 * self._seen
        if self._seconds * most <= decoding_seconds * self._rows:
            return most
        return max(int(decoding_seconds * self._rows / self._seconds), 1)

    def observe(self, rows: int, decoding_seconds: float, seconds: float) -> None:
        """Counts a pass of `seconds` with `rows` prompt rows beside others expected to take `decoding_seconds`."""
        self._seen = max(self._seen, rows)
        self._rows = _MEMORY * self._rows + rows
        self._seconds = _MEMORY * self._seconds + max(seconds - decoding_seconds, 0.0)


def divide(room: int, wanted: Sequence[int]) -> list[int]:
    """`room` rows among prompts that still want so many: equal parts, and what a short one leaves goes to the others.

    So a short prompt is not held up by a long one that came before it.
    """
    given = [0] * len(wanted)
    order = sorted(range(len(wanted)), key=lambda index: (wanted[index], index))
    for place, index in enumerate(order):
        left = len(order) - place
        given[index] = min(wanted[index], -(-room // left))  # rounded up: even one row goes to somebody
        room -= given[index]
    return given
