"""Chunked prefill: how many prompt rows a pass computes while other requests decode.

A prompt alone is computed in full chunks. In a batch with requests that decode, prompt rows may take as long as the
pass would take without them: so prefill and decoding share the time equally, and a token takes at most twice as long
as without a prompt. The number of rows follows from measured pass costs.
"""

from __future__ import annotations

from collections.abc import Sequence

from outrider.speculation.costs import VerifyCost

PREFILL_CHUNK = 256
"""Prompt tokens of one pass: enough to amortize reading the weights, few enough for their rows to stay in cache."""
_MEMORY = 0.8


class PromptShare:
    """The prompt rows of a pass, learnt from earlier passes.

    Args:
        cost: seconds of a pass by rows, as measured at load: the first estimate of the cost of a prompt row.
    """

    def __init__(self, cost: VerifyCost) -> None:
        first, last = cost.rows[0], cost.rows[-1]
        self._rows = float(last - first)
        self._seconds = cost.seconds[-1] - cost.seconds[0]
        self._seen = last // 2

    def rows(self, decoding_seconds: float) -> int:
        """Prompt rows in a pass whose other rows take `decoding_seconds`; at least one, so that prompts end.

        At most twice the most of an earlier pass: a longer extrapolation is a guess.
        """
        most = 2 * self._seen
        if self._seconds * most <= decoding_seconds * self._rows:
            return most
        return max(int(decoding_seconds * self._rows / self._seconds), 1)

    def observe(self, rows: int, decoding_seconds: float, seconds: float) -> None:
        """Counts a pass of `seconds` with `rows` prompt rows and others expected to take `decoding_seconds`."""
        self._seen = max(self._seen, rows)
        self._rows = _MEMORY * self._rows + rows
        self._seconds = _MEMORY * self._seconds + max(seconds - decoding_seconds, 0.0)


def divide(room: int, wanted: Sequence[int]) -> list[int]:
    """Divides `room` rows among prompts of `wanted` rows: equally, and what a short one leaves goes to the others.

    So a short prompt does not wait for a long one that came before it.
    """
    given = [0] * len(wanted)
    order = sorted(range(len(wanted)), key=lambda index: (wanted[index], index))
    for served, index in enumerate(order):
        left = len(order) - served
        given[index] = min(wanted[index], -(-room // left))  # rounded up: a single row is not lost
        room -= given[index]
    return given
