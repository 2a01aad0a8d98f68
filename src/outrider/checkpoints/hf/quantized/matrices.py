"""The quantized matrices of a folder: its tensors sorted into parts, and each matrix read as its config says."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from outrider.checkpoints.checkpoint import FLOAT_FORMATS, Tensor
from outrider.checkpoints.hf.quantized.experts import stacked
from outrider.checkpoints.hf.quantized.parts import ACTIVATIONS, Module, Parts
from outrider.checkpoints.hf.quantized.scheme import Matrix, Scheme
from outrider.checkpoints.hf.safetensors_file import StoredTensor
from outrider.errors import CheckpointError

Named = list[tuple[str, StoredTensor]]
"""Stored tensors with their neutral names."""

_WEIGHT = "weight"
_PARTS = frozenset(
    """
    weight weight_packed weight_scale weight_scale_2 weight_scale_inv weight_zero_point weight_g_idx weight_shape
    weight_global_scale qweight qzeros scales g_idx
    """.split()  # noqa: SIM905 (a list would take a line per word)
)
_STACKS = (".experts.gate_up_proj", ".experts.down_proj")
"""Matrices whose names do not end in ".weight"."""
_STACK_SCALE = "_scale_inv"


def quantized_matrices(
    named: Named, scheme: Scheme, expected: Collection[str], path: Path
) -> tuple[Named, dict[str, Tensor]]:
    """The tensors that are not quantized, and the matrices that are.

    Args:
        named: the text model's tensors.
        scheme: how matrices are stored.
        expected: the neutral names of the model's tensors.
        path: the folder, for errors.

    Raises:
        CheckpointError: parts are missing, left over, of another shape or type, or contradict the config.
    """
    plain: Named = []
    modules: dict[str, tuple[Module, dict[str, StoredTensor]]] = {}
    for name, tensor in named:
        matrix, part = _split(name)
        if part not in _PARTS and part not in ACTIVATIONS:
            plain.append((name, tensor))
            continue
        stored = tensor.name[: len(tensor.name) - len(name) + len(matrix)]
        _, of_module = modules.setdefault(matrix, (Module(matrix, stored), {}))
        if part in of_module:
            problem = f"holds the tensor {name} twice"
            raise CheckpointError(problem, path=path, remedy="Remove the files that are not the model's")
        of_module[part] = tensor
    matrices: dict[str, Matrix] = {}
    for name, (module, stored_parts) in modules.items():
        if not stored_parts.keys() - ACTIVATIONS:
            continue
        matrix = name if name.endswith(_STACKS) else f"{name}.{_WEIGHT}"
        parts = Parts(module, matrix, stored_parts, path)
        weight = stored_parts.get(_WEIGHT)
        if weight is not None and weight.dtype in FLOAT_FORMATS and stored_parts.keys() <= {_WEIGHT, *ACTIVATIONS}:
            if scheme.complete and len(weight.shape) > 1 and matrix in expected and scheme.reader(module):
                raise parts.fault(f"stores {matrix} as {weight.dtype}, although its config says that it is quantized")
            plain.append((matrix, weight))
            continue
        if (reader := scheme.reader(module)) is None:
            part = min(stored_parts.keys() - ACTIVATIONS)
            raise parts.fault(f"stores {matrix} as {part}, although its config says that it is not quantized")
        matrices[matrix] = reader(parts)
    return plain, stacked(matrices, path)


def _split(name: str) -> tuple[str, str]:
    """The module that a tensor belongs to, and which part of it the tensor is."""
    if (stack := name.removesuffix(_STACK_SCALE)).endswith(_STACKS):
        return stack, _WEIGHT if stack == name else f"{_WEIGHT}{_STACK_SCALE}"
    module, _, part = name.rpartition(".")
    return module, part
