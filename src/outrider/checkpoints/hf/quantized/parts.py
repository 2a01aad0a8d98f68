"""The stored tensors that make one quantized matrix, each read under its own name, with its type and shape checked."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from outrider.arrays import Floats
from outrider.checkpoints.checkpoint import FLOAT_FORMATS, Tensor
from outrider.checkpoints.hf.names import PREFIXES
from outrider.checkpoints.hf.safetensors_file import StoredTensor
from outrider.errors import CheckpointError

DAMAGED = "The file is damaged, or an incompatible tool wrote it: download or quantize it again"
INSTEAD = "Use the model unquantized (`--quantize q4_0` quantizes it on load), or a GGUF file"
"""What to do about a scheme that is not read."""
MAX_SCALE = 2.0**100
"""Codes are below 2**10, so that no weight overflows."""
ACTIVATIONS = frozenset(
    "input_scale input_global_scale input_zero_point activation_scale act_scale k_scale v_scale q_scale".split()  # noqa: SIM905
)
"""Parts that scale activations, or a cache of 8-bit keys and values. Weights alone are read: activations are computed
in more precision than the file was quantized for, and the cache has a format of its own."""


@dataclass(frozen=True)
class Module:
    """The module that a matrix belongs to.

    Attributes:
        name: the neutral name, without ".weight".
        stored: the name in the files.
    """

    name: str
    stored: str

    @cached_property
    def names(self) -> tuple[str, ...]:
        """What configs may call it: its name in the files, and that under every prefix of the text model."""
        return tuple(dict.fromkeys((self.stored, self.name, *(prefix + self.name for prefix in PREFIXES))))

    @property
    def kind(self) -> str:
        """The class of torch that it has in the reference."""
        return "Embedding" if self.name.startswith("embed_tokens") else "Linear"


class Parts:
    """The parts of one matrix.

    Args:
        module: that they belong to.
        matrix: the neutral name of the matrix.
        stored: the last part of their names -> the tensors.
        path: the folder, for errors.

    Raises:
        CheckpointError: from every read: the part is missing, or of another type or shape.
    """

    def __init__(self, module: Module, matrix: str, stored: Mapping[str, StoredTensor], path: Path) -> None:
        self.module, self.matrix, self._stored, self._path = module, matrix, stored, path
        self._read: set[str] = set()

    def __contains__(self, part: str) -> bool:
        return part in self._stored

    @property
    def names(self) -> frozenset[str]:
        """The parts that are there."""
        return frozenset(self._stored)

    def of(self, part: str, *dtypes: str) -> StoredTensor:
        """A part of one of these types."""
        if part not in self._stored:
            raise self.fault(f"stores {self.matrix} without {part}")
        self._read.add(part)
        tensor = self._stored[part]
        if tensor.dtype not in dtypes:
            raise self.fault(f"stores {part} of {self.matrix} as {tensor.dtype}, not as {' or '.join(dtypes)}")
        if 0 in tensor.shape:
            raise self.fault(f"stores {part} of {self.matrix} in the empty shape {tensor.shape}")
        return tensor

    def matrix_of(self, part: str, *dtypes: str) -> StoredTensor:
        """A part of one of these types with two dimensions."""
        tensor = self.of(part, *dtypes)
        if len(tensor.shape) != 2:
            raise self.misfit(part, tensor.shape, "(rows, columns)")
        return tensor

    def scales(self, part: str, *shapes: tuple[int, ...], dtypes: Collection[str] = FLOAT_FORMATS) -> StoredTensor:
        """A part of scales in one of these shapes."""
        tensor = self.of(part, *dtypes)
        if tensor.shape not in shapes:
            raise self.misfit(part, tensor.shape, " or ".join(map(str, shapes)))
        return tensor

    def float32(self, scales: StoredTensor) -> Floats:
        """The values of a part, in its shape. Refuses those of which weights could be made that are not finite."""
        values = Tensor(self.matrix, scales.dtype, scales.shape, scales.data).float32()  # type: ignore[arg-type]
        if not (np.abs(values) < MAX_SCALE).all():
            raise self.fault(f"scales {self.matrix} by a number that is not finite, or too large")
        return values

    def finish(self, ignored: Collection[str] = ()) -> None:
        """Refuse parts that nothing has read: they might change the value of the matrix."""
        if left := sorted(self.names - self._read - ACTIVATIONS - set(ignored)):
            raise self.fault(f"stores {self.matrix} with {left[0]}, which its quantization does not explain", INSTEAD)

    def misfit(self, part: str, found: tuple[int, ...], wanted: str) -> CheckpointError:
        """The error about a part of another shape."""
        return self.fault(f"stores {part} of {self.matrix} in the shape {found}, not {wanted}")

    def fault(self, problem: str, remedy: str = DAMAGED) -> CheckpointError:
        """A CheckpointError about this folder."""
        return CheckpointError(problem, path=self._path, remedy=remedy)
