"""What a quantization config is turned into: for each module, how its parts make a matrix."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from outrider.checkpoints.checkpoint import Tensor
from outrider.checkpoints.hf.quantized.parts import Module, Parts


class Matrix(Protocol):
    """A matrix whose parts were found and fit. The parts themselves are read when the data of its tensor are."""

    def tensor(self) -> Tensor:
        """It in the smallest format that holds every value."""
        ...

    def float32(self) -> Tensor:
        """It in float32."""
        ...


Reader = Callable[[Parts], Matrix]
"""Makes a matrix out of its parts. Raises CheckpointError if they do not fit."""


@dataclass(frozen=True)
class Scheme:
    """How the matrices of a folder are stored.

    Attributes:
        reader: of a module; None if the config leaves the module unquantized.
        complete: whether the config names every module that is quantized. If not, the tool has left out others.
    """

    reader: Callable[[Module], Reader | None]
    complete: bool
