"""What bounds a pass on some hardware: given as figures, by the name of an accelerator, or measured (`measured.py`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from outrider.checkpoints.checkpoint import FORMATS, Format
from outrider.errors import UsageError


@dataclass(frozen=True)
class Arithmetic:
    """Seconds that a weight (or a pair of query and key numbers, or a step) takes for 1, 2, ... rows, data at hand.

    Straight lines between `rows`, the first value below, and in proportion above: more rows are taken in batches.
    """

    rows: tuple[int, ...]
    seconds: tuple[float, ...]

    @classmethod
    def flat(cls, multiply_adds_per_second: float) -> Arithmetic:
        """In proportion to the rows throughout."""
        return cls((1, 2), (1 / multiply_adds_per_second, 2 / multiply_adds_per_second))

    def at(self, rows: float) -> float:
        """Seconds for one weight and `rows` rows."""
        if rows > self.rows[-1]:
            return self.seconds[-1] * rows / self.rows[-1]
        return float(np.interp(rows, self.rows, self.seconds))

    @property
    def most(self) -> float:
        """Multiply-adds per second with many rows."""
        return self.rows[-1] / self.seconds[-1]


@dataclass(frozen=True)
class Hardware:
    """What a pass can be bound by.

    Args:
        bytes_per_second: at which memory is read.
        linear: per weight format.
        attention: per number that a head holds of a position, twice (keys and values).
        streamed: per weight format, of weights that come from memory while they are multiplied. Measured for the format
            that most weights have; of others it is reckoned from `bytes_per_second` and `linear`.
        sweep_start: seconds, by rows, that a sweep over a matrix takes longer than its bytes and weights say: until all
            threads have begun, memory has reached its pace, the last thread has ended, and what lies between this sweep
            and the next (norms and the like) has been done row by row.
        most_drafted: drafted tokens that one pass takes, of all requests together; None for any number.
    """

    name: str
    bytes_per_second: float
    linear: Mapping[Format, Arithmetic]
    attention: Arithmetic
    sweep_start: Arithmetic
    streamed: Mapping[Format, Arithmetic] = field(default_factory=dict)
    most_drafted: int | None = None


_DENSE: tuple[Format, ...] = ("F32", "F16", "BF16")
_SWEEP_START = Arithmetic((1, 1 << 20), (5e-6, 5e-6))
"""Where it is not measured. Processors of two cores were found to need 5 to 20 us for one row; on an accelerator some
four kernels stand between two sweeps, at 1 to 2 us each in a recorded graph."""
_FLOAT_SHARE = 1 / 4
"""Of a processor's 8-bit multiply-adds so many can be done in float32, as attention and unquantized weights are: as
many fit a vector. Measured on AVX-512: 0.28 and 0.33."""

ACCELERATORS: dict[str, tuple[float, float]] = {
    "h200": (4800, 989),
    "h100": (3350, 989),
    "a100": (2039, 312),
    "l40s": (864, 362),
    "l4": (300, 121),
    "mi300x": (5300, 1307),
    "rtx-5090": (1792, 209.5),
    "rtx-4090": (1008, 165.2),
    "rtx-3090": (936, 71),
}
"""Name -> (memory GB/s, dense bfloat16 TFLOP/s with float32 sums), from the makers' data sheets."""


def accelerator(name: str) -> Hardware:
    """A named accelerator, as its maker describes it.

    Raises:
        UsageError: there is none of that name; the message lists those there are.
    """
    name = name.lower()
    if name not in ACCELERATORS:
        raise UsageError(
            f'there is no hardware called {name!r}: give "here" or one of {", ".join(ACCELERATORS)}, or describe yours '
            "with --bandwidth, --arithmetic and --cores"
        )
    gigabytes, teraflops = ACCELERATORS[name]
    arithmetic = Arithmetic.flat(teraflops * 1e12 / 2)
    return Hardware(name, gigabytes * 1e9, dict.fromkeys(FORMATS, arithmetic), arithmetic, _SWEEP_START)


def processor(gigabytes: float, multiply_adds: float, cores: int) -> Hardware:
    """A processor by its figures.

    Args:
        gigabytes: read from memory per second, by all cores together.
        multiply_adds: of 8-bit numbers, G per second and core.
    """
    rate = multiply_adds * 1e9 * cores
    floats = Arithmetic.flat(rate * _FLOAT_SHARE)
    linear = {format: floats if format in _DENSE else Arithmetic.flat(rate) for format in FORMATS}
    name = f"{cores} cores with {gigabytes:g} GB/s and {multiply_adds:g} G multiply-adds/s each"
    return Hardware(name, gigabytes * 1e9, linear, floats, _SWEEP_START)


def with_bandwidth(hardware: Hardware, gigabytes: float) -> Hardware:
    """The same with other memory."""
    name = f"{hardware.name}, but {gigabytes:g} GB/s"
    return replace(hardware, name=name, bytes_per_second=gigabytes * 1e9, streamed={})
