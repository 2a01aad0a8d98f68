"""The frequencies of a rotary embedding, computed once for all executors."""

from __future__ import annotations

from decimal import Context, Decimal

import numpy as np
import numpy.typing as npt

from outrider.checkpoints.config import Rope


def inverse_frequencies(rope: Rope) -> npt.NDArray[np.float32]:
    """(dims / 2) angles per position, float32: theta^(-2i / dims) for the pairs that turn, 0 for the rest.

    The steps and roundings are the reference's, except that the power is correctly rounded. numpy's power differs by
    processor in the last bit (AVX-512 uses another library), and that bit decides near ties between tokens.
    """
    exponents = np.arange(0, rope.rotated, 2, dtype=np.float32) / np.float32(rope.dims)
    theta, exactly = Decimal(float(np.float32(rope.theta))), Context(prec=40)
    powers = np.array([float(exactly.power(theta, Decimal(float(e)))) for e in exponents], np.float32)
    turning = (np.float32(1) / powers) / np.float32(rope.factor)
    return np.concatenate([turning, np.zeros(rope.dims // 2 - len(turning), np.float32)]).astype(np.float32)
