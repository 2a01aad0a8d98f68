"""How long a pass takes: the roofline of each matrix, one after the other."""

from __future__ import annotations

from outrider.roofline.hardware import Hardware
from outrider.roofline.work import Matrix, Work

KV_BYTES = 2.0
"""Of one number of a key or value, in float16."""
_SHARPNESS = 2.5
"""How well reading and multiplying overlap where that was not measured: the time of a matrix is this norm of the two.
The maximum of them (an infinite norm) would need reading never to wait for arithmetic; the sum (1) is what no overlap
gives. Fitted to passes over 1 to 16 rows of the demo and at Gemma 4 E2B's shapes, on two cores of three processors: 2
to 3 fits each."""


def pass_seconds(
    work: Work, hardware: Hardware, *, rows: int, requests: int = 1, context: int = 0, kv_bytes: float = KV_BYTES
) -> float:
    """Seconds of a pass.

    Args:
        rows: of each request: its last token and its drafts.
        requests: that share the pass, each with keys and values of its own.
        context: positions that each of them holds.
        kv_bytes: of one number of a key or value.
    """
    everyone = rows * requests
    seconds = work.sweeps * hardware.sweep_start.at(everyone)
    for matrix in work.matrices:
        seconds += matrix.touched(everyone) * _matrix_seconds(matrix, hardware, matrix.rows_each(everyone))
    for layer in work.attentions:
        positions = layer.positions(context)
        reading = 2 * positions * layer.kv_heads * layer.head_dim * kv_bytes / hardware.bytes_per_second
        multiplying = 2 * positions * layer.heads * layer.head_dim * hardware.attention.at(rows)
        seconds += requests * _overlapped(reading, multiplying)
    return seconds


def _matrix_seconds(matrix: Matrix, hardware: Hardware, rows: float) -> float:
    """Of all of it, which so many rows meet."""
    reading = matrix.nbytes / hardware.bytes_per_second
    multiplying = matrix.weights * hardware.linear[matrix.format].at(rows)
    if (streamed := hardware.streamed.get(matrix.format)) is None:
        return _overlapped(reading, multiplying)
    most = streamed.rows[-1]
    if rows <= most:
        return matrix.weights * streamed.at(rows)
    # From there on, what further rows cost is reckoned.
    until_there = _overlapped(reading, matrix.weights * hardware.linear[matrix.format].at(most))
    return matrix.weights * streamed.at(most) + _overlapped(reading, multiplying) - until_there


def bound_by_arithmetic(work: Work, hardware: Hardware) -> int:
    """From how many rows on multiplying takes as long as reading, over all matrices; 1 if it always does.

    That shows in the time of both, which is then longer than reading alone by what `_overlapped` has for equal ones.
    """
    rows = 1
    while rows < 1 << 16:
        reading = sum(m.nbytes * m.touched(rows) for m in work.matrices) / hardware.bytes_per_second
        both = sum(m.touched(rows) * _matrix_seconds(m, hardware, m.rows_each(rows)) for m in work.matrices)
        if both >= _overlapped(reading, reading) * (1 - 1e-9):
            return rows
        rows += max(1, rows // 32)
    return rows


def _overlapped(a: float, b: float) -> float:
    return float((a**_SHARPNESS + b**_SHARPNESS) ** (1 / _SHARPNESS))
