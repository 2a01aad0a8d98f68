"""What a quantization config is turned into: for each module, how its parts make a matrix."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from outrider.checkpoints.checkpoint import Tensor
from outrider.checkpoints.hf.quantized.parts import Module, Parts

Reader = Callable[[Parts], Tensor]
"""Makes a matrix out of its parts. It reads only names, types and shapes, and small tensors; the rest is read when the
tensor's data are."""


@dataclass(frozen=True)
class Scheme:
    """How the matrices of a folder are stored.

    Attributes:
        reader: of a module; None if the config leaves the module unquantized.
        complete: whether the config names every module that is quantized. If not, the tool has left out others.
    """

    reader: Callable[[Module], Reader | None]
    complete: bool
