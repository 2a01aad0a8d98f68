"""Google's QAT mobile checkpoints: integers of 2, 4 and 8 bits, and static scales for activations.

| variant of   | 2 and 4 bits                         | 8 bits                   | activations             |
| ------------ | ------------------------------------ | ------------------------ | ----------------------- |
| transformers | weight: bytes; weight_scale          | weight: int8;            | input_activation_scale, |
|              | embedding_quantized, embedding_scale | weight_scale             | output_activation_scale |
| vLLM         | weight_packed: words; weight_scale;  | weight: int8;            | input_scale,            |
|              | weight_shape                         | weight_scale             | output_scale            |

Codes lie densely from the lowest bits up, plus 2^(bits-1), in both; scales are (rows, 1), or (rows, groups) of a
per-layer embedding. The scales of an 8-bit cache (k_cache_scale, v_cache_scale) are left out, as in transformers: the
cache has a format of its own.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np

from outrider.arrays import Floats
from outrider.checkpoints.checkpoint import FLOAT_FORMATS, Format, GroupScales, Tensor
from outrider.checkpoints.hf.mobile_config import Module, ModuleOf
from outrider.checkpoints.hf.safetensors_file import StoredTensor
from outrider.checkpoints.tensors import STATIC_SCALES
from outrider.errors import CheckpointError

_FORMATS: dict[int, Format] = {2: "I2", 4: "I4", 8: "I8"}
_CODES = ("weight", "weight_packed", "embedding_quantized")
_SCALES = ("weight_scale", "embedding_scale")
_STATIC = dict(zip(("input_activation_scale", "output_activation_scale"), STATIC_SCALES, strict=True))
_SHAPE = "weight_shape"
_CACHE = ("k_cache_scale", "v_cache_scale", "k_scale", "v_scale")
_PARTS = frozenset((*_CODES, *_SCALES, *_STATIC, *STATIC_SCALES, _SHAPE))
_GROUP = 32
_REMEDY = "The file is damaged, or an incompatible tool wrote it: download it again"

Named = list[tuple[str, StoredTensor]]
"""Stored tensors with their neutral names."""


def mobile_tensors(
    named: Named, module_of: ModuleOf, expected: Collection[str], path: Path
) -> tuple[Named, dict[str, Tensor]]:
    """The tensors that are not quantized, and the matrices that are, with their static scales.

    Args:
        named: the text model's tensors.
        module_of: what the config says of a module.
        expected: the neutral names of the model's tensors.
        path: the folder, for errors.

    Raises:
        CheckpointError: parts are missing, left over, of another shape or type, or contradict the config.
    """
    plain: Named = []
    modules: dict[str, dict[str, StoredTensor]] = {}
    for name, tensor in named:
        module, _, part = name.rpartition(".")
        if part in _CACHE:
            continue
        if part not in _PARTS:
            plain.append((name, tensor))
        elif modules.setdefault(module, {}).setdefault(part, tensor) is not tensor:
            raise CheckpointError(f"holds the tensor {name} twice", path=path, remedy="Remove the foreign files")
    found: dict[str, Tensor] = {}
    for name, parts in modules.items():
        reader = _Reader(name, parts, path)
        module_said = module_of(reader.stored, "Embedding" if name.startswith("embed_tokens") else "Linear")
        if parts.keys() == {"weight"} and parts["weight"].dtype in FLOAT_FORMATS:
            matrix = f"{name}.weight"
            if module_said and matrix in expected and len(parts["weight"].shape) > 1:
                raise reader.fault(
                    f"stores {matrix} as {parts['weight'].dtype}, but its config says that it is quantized"
                )
            plain.append((matrix, parts["weight"]))
        elif module_said is None:
            raise reader.fault(f"stores {name} with {min(parts)}, but its config says that it is not quantized")
        else:
            found |= reader.tensors(module_said)
    return plain, found


class _Reader:
    """The parts of one module."""

    def __init__(self, name: str, parts: Mapping[str, StoredTensor], path: Path) -> None:
        self.name, self._parts, self._path = name, parts, path
        part, tensor = next(iter(parts.items()))
        self.stored = tensor.name.removesuffix(f".{part}")
        """The name of the module in the files."""

    def tensors(self, module: Module) -> dict[str, Tensor]:
        """The matrix and its static scales."""
        codes, scales = self._one_of(_CODES), self._one_of(_SCALES)
        word, per_word = {"I8": (8, 1), "U8": (8, 8 // module.bits), "I32": (32, 32 // module.bits)}.get(
            codes.dtype, (0, 0)
        )
        if word == 0 or (codes.dtype == "I8") != (module.bits == 8) or len(codes.shape) != 2:
            raise self.fault(f"stores {self.name} as {codes.dtype}, but its config says {module.bits} bits")
        rows, columns = codes.shape[0], codes.shape[1] * per_word
        if _SHAPE in self._parts and self._shape() != (rows, columns):
            raise self.fault(f"stores {self.name} as {(rows, columns)}, but its {_SHAPE} is {self._shape()}")
        matrix = f"{self.name}.weight"
        groups = GroupScales(self._group_scales(scales, rows, columns))
        tensors = {matrix: Tensor(matrix, _FORMATS[module.bits], (rows, columns), codes.data, groups)}
        wanted = dict(zip(STATIC_SCALES, (module.inputs, module.outputs), strict=True))
        for part, tensor in self._parts.items():
            if (neutral := _STATIC.get(part, part)) in STATIC_SCALES:
                tensors[f"{self.name}.{neutral}"] = self._static(neutral, tensor, wanted.pop(neutral))
        if missing := [neutral for neutral, needed in wanted.items() if needed]:
            raise self.fault(f"lacks {self.name}.{missing[0]}, which its config calls for")
        return tensors

    def _one_of(self, parts: Collection[str]) -> StoredTensor:
        there = [part for part in parts if part in self._parts]
        if len(there) != 1:
            raise self.fault(f"stores {self.name} with {' and '.join(there) or 'none'} of {', '.join(parts)}")
        return self._parts[there[0]]

    def _group_scales(self, stored: StoredTensor, rows: int, columns: int) -> Floats:
        groups = stored.shape[1] if len(stored.shape) == 2 and stored.shape[0] == rows else 0
        if stored.dtype not in FLOAT_FORMATS or not groups or columns % groups or columns // groups % _GROUP:
            raise self.fault(f"scales {self.name} {(rows, columns)} by {stored.shape} of {stored.dtype}")
        if stored.dtype == "F32":
            scales = np.require(stored.data.view("<f4").reshape(stored.shape), requirements=["C", "A"])
        else:
            scales = Tensor(self.name, stored.dtype, stored.shape, stored.data).float32()
        if not np.isfinite(scales).all():
            raise self.fault(f"scales {self.name} by a number that is not finite")
        return scales

    def _static(self, neutral: str, stored: StoredTensor, called_for: bool | None) -> Tensor:
        if called_for is False:
            raise self.fault(f"holds {stored.name}, which its config does not call for")
        if stored.dtype not in FLOAT_FORMATS or stored.shape not in ((), (1,)):
            raise self.fault(f"stores {stored.name} as {stored.shape} of {stored.dtype}, not as one number")
        return Tensor(f"{self.name}.{neutral}", stored.dtype, (1,), stored.data)

    def _shape(self) -> tuple[int, ...]:
        stored = self._parts[_SHAPE]
        if stored.dtype not in ("I64", "I32") or stored.shape != (2,):
            raise self.fault(f"stores {stored.name} as {stored.shape} of {stored.dtype}, not as two integers")
        return tuple(stored.data.view("<i8" if stored.dtype == "I64" else "<i4").tolist())

    def fault(self, problem: str) -> CheckpointError:
        """A CheckpointError about this folder."""
        return CheckpointError(problem, path=self._path, remedy=_REMEDY)
