"""The quantization methods that are read, by the name that configs give them; all others are refused by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from outrider.checkpoints.hf.json_file import read_json
from outrider.checkpoints.hf.quantized.auto_round import auto_round
from outrider.checkpoints.hf.quantized.awq import awq
from outrider.checkpoints.hf.quantized.compressed_tensors import compressed_tensors
from outrider.checkpoints.hf.quantized.fp8 import fp8
from outrider.checkpoints.hf.quantized.gptq import gptq
from outrider.checkpoints.hf.quantized.modelopt import modelopt, unwrapped
from outrider.checkpoints.hf.quantized.parts import INSTEAD
from outrider.checkpoints.hf.quantized.scheme import Scheme
from outrider.checkpoints.settings import Settings
from outrider.errors import CheckpointError

METHODS: dict[str, Callable[[Settings], Scheme]] = {
    "compressed-tensors": compressed_tensors,
    "fp8": fp8,
    "modelopt": modelopt,
    "modelopt_fp4": modelopt,
    "modelopt_mixed": modelopt,
    "awq": awq,
    "gptq": gptq,
    "auto-round": auto_round,
}
"""`quant_method` -> its reader."""

_OF_ITS_OWN: dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
    "hf_quant_config.json": unwrapped,
    "quantize_config.json": lambda config: {"quant_method": "gptq", **config},
    "quant_config.json": lambda config: {"quant_method": "awq", **config},
}
"""Files that some tools wrote their config to before config.json had a place for it, and what they hold."""


def scheme_of(folder: Path, described: Mapping[str, Any] | None) -> Scheme | None:
    """How a folder's matrices are stored; None if they are not quantized.

    Args:
        folder: the checkpoint.
        described: config.json's `quantization_config`.

    Raises:
        CheckpointError: another method, or settings of it that are not read.
    """
    path = folder / "config.json"
    if described is None:
        present = [name for name in _OF_ITS_OWN if (folder / name).is_file()]
        if not present:
            return None
        path = folder / present[0]
        described = _OF_ITS_OWN[present[0]](read_json(path))
    method = described.get("quant_method") if isinstance(described, Mapping) else None
    if not isinstance(method, str) or method not in METHODS:
        problem = f"is quantized by {method!r}, which is not supported ({', '.join(METHODS)} are)"
        raise CheckpointError(problem, path=path, remedy=INSTEAD)
    prefix = "quantization_config."
    return METHODS[method](Settings({prefix + key: value for key, value in described.items()}, path, prefix))
