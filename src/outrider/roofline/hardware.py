"""What bounds a pass on some hardware: given as figures, by the name of an accelerator, or measured (`measured.py`)."""

from __future__ import annotations

from dataclasses import dataclass, replace

from outrider.backends.cpu import KvFormat
from outrider.checkpoints.checkpoint import Format
from outrider.errors import UsageError

_DENSE: tuple[Format, ...] = ("F32", "F16", "BF16")
_FLOAT_SHARE = 1 / 4
"""A processor's float32 multiply-adds per second, as unquantized weights and attention to float16 keys and values need
them, over those of quantized weights: as many fit into a vector. Measured with AVX-512: 0.28 and 0.33."""
_BYTE_SHARE = 0.6
"""The rate of attention to 8-bit keys and values over that of quantized weights: byte products too, on tiles that are
also rescaled. Eight rows at 128k positions of E2B's shape had 238 G multiply-adds/s with AVX-512 VNNI on two cores, at
8k 117 with AVX2; passes at short context fit 350 and 215 for the weights."""


@dataclass(frozen=True)
class Hardware:
    """Two numbers that bound a pass.

    Args:
        bytes_per_second: at which weights are read from memory.
        multiply_adds_per_second: of quantized weights, with many rows.
        float_share: the rate of float32 multiply-adds over that.
        byte_share: the rate of attention to 8-bit keys and values over that.
        most_drafted: maximum number of drafted tokens in a pass, over all requests; None for no limit.
    """

    name: str
    bytes_per_second: float
    multiply_adds_per_second: float
    float_share: float = _FLOAT_SHARE
    byte_share: float = _BYTE_SHARE
    most_drafted: int | None = None

    def multiply_adds(self, format: Format) -> float:
        """Multiply-adds per second with weights of a format."""
        return self.multiply_adds_per_second * (self.float_share if format in _DENSE else 1.0)

    def attention_multiply_adds(self, kv_format: KvFormat) -> float:
        """Multiply-adds per second with keys and values of a format."""
        return self.multiply_adds_per_second * (self.byte_share if kv_format == "int8" else self.float_share)

    def reckoned(self, cores: int, measured: int) -> Hardware:
        """As many cores of this kind, from what `measured` of them do: arithmetic grows with them, memory stays."""
        name = f"{self.name}, reckoned for {cores} cores: arithmetic of {cores}, memory as measured"
        return replace(self, name=name, multiply_adds_per_second=self.multiply_adds_per_second * cores / measured)

    def replaced(self, gigabytes: float | None, multiply_adds: float | None) -> Hardware:
        """The same with other figures where they are given: memory in GB/s, G multiply-adds/s of quantized weights."""
        found = self
        if gigabytes is not None:
            found = replace(found, name=f"{found.name}, but {gigabytes:g} GB/s", bytes_per_second=gigabytes * 1e9)
        if multiply_adds is not None:
            name, rate = f"{found.name}, but {multiply_adds:g} G multiply-adds/s", multiply_adds * 1e9
            found = replace(found, name=name, multiply_adds_per_second=rate)
        return found


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
    """A named accelerator, by its data sheet.

    Raises:
        UsageError: there is none of that name; the message lists those there are.
    """
    name = name.lower()
    if name not in ACCELERATORS:
        raise UsageError(
            f'there is no hardware called {name!r}: give "here" or one of {", ".join(ACCELERATORS)}, or describe yours '
            "with --bandwidth and --arithmetic"
        )
    gigabytes, teraflops = ACCELERATORS[name]
    return Hardware(name, gigabytes * 1e9, teraflops * 1e12 / 2, float_share=1.0, byte_share=1.0)
