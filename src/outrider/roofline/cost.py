"""How long a pass takes: the roofline of each matrix, one after the other."""

from __future__ import annotations

from outrider.backends.cpu import KvFormat
from outrider.roofline.hardware import Hardware
from outrider.roofline.work import Matrix, Work

_KV_BYTES: dict[KvFormat, float] = {"float32": 4, "float16": 2, "int8": 17 / 16}
"""Of one number of a key or value; in 8 bits with a float32 scale for 32 numbers of a key."""
_SHARPNESS = 2.5
"""How well reading and multiplying overlap: the time of a matrix is this norm of the two. The maximum (an infinite
norm) would need reading never to wait for arithmetic; the sum (1) is no overlap at all. Fitted to passes over 1 to 16
rows of the demo and at Gemma 4 E2B's shapes, on two cores of three processors: 2 to 3 fits each."""
_SWEEP_SECONDS = 5e-6
"""Between two sweeps over matrices: a barrier of the threads, norms and other small operations. Two cores took 5 to
20 us; an accelerator runs some four kernels there, at 1 to 2 us each in a recorded graph."""


def pass_seconds(
    work: Work, hardware: Hardware, *, rows: int, requests: int = 1, context: int = 0, kv_format: KvFormat = "int8"
) -> float:
    """Seconds of a pass.

    Args:
        rows: of each request: its last token and its drafts.
        requests: that share the pass, each with keys and values of its own.
        context: positions that each of them holds.
        kv_format: of keys and values.
    """
    all_rows = rows * requests
    seconds = work.sweeps * _SWEEP_SECONDS
    seconds += sum(_matrix_seconds(matrix, hardware, all_rows) for matrix in work.matrices)
    for layer in work.attentions:
        positions, stored = layer.positions(context), layer.stored(kv_format)
        reading = 2 * positions * layer.kv_heads * layer.head_dim * _KV_BYTES[stored] / hardware.bytes_per_second
        multiplying = 2 * positions * layer.heads * layer.head_dim * rows / hardware.attention_multiply_adds(stored)
        seconds += requests * _overlapped(reading, multiplying)
    return seconds


def bound_by_arithmetic(work: Work, hardware: Hardware) -> int:
    """The least number of rows whose multiplying takes as long as reading, over all matrices."""
    rows = 1
    while rows < 1 << 16:
        reading, multiplying = (
            sum(of(matrix, hardware, rows) for matrix in work.matrices) for of in (_read, _multiply)
        )
        if multiplying >= reading:
            return rows
        rows += max(1, rows // 32)
    return rows


def _matrix_seconds(matrix: Matrix, hardware: Hardware, rows: int) -> float:
    return _overlapped(_read(matrix, hardware, rows), _multiply(matrix, hardware, rows))


def _read(matrix: Matrix, hardware: Hardware, rows: int) -> float:
    """Seconds to read what the rows touch."""
    return matrix.touched(rows) * matrix.nbytes / hardware.bytes_per_second


def _multiply(matrix: Matrix, hardware: Hardware, rows: int) -> float:
    """Seconds to multiply each row by its share."""
    return rows * matrix.weights * matrix.chosen / matrix.count / hardware.multiply_adds(matrix.format)


def _overlapped(a: float, b: float) -> float:
    return float((a**_SHARPNESS + b**_SHARPNESS) ** (1 / _SHARPNESS))
