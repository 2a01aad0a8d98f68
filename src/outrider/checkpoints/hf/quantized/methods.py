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


def config_beside(folder: Path) -> tuple[Path, dict[str, Any]] | None:
    """The file in which a folder has a quantization config of its own, and that config; None if there is none.

    Raises:
        CheckpointError: the file cannot be read.
    """
    present = next((name for name in _OF_ITS_OWN if (folder / name).is_file()), None)
    return (folder / present, _OF_ITS_OWN[present](read_json(folder / present))) if present else None


def scheme_of(path: Path, described: object) -> Scheme:
    """How the matrices of a folder are stored.

    Args:
        path: the file with the config, for errors.
        described: config.json's `quantization_config`, or what is written beside.

    Raises:
        CheckpointError: another method, or settings of it that are not read.
    """
    settings = described if isinstance(described, dict) else {}
    method = settings.get("quant_method")
    if not isinstance(method, str) or method not in METHODS:
        problem = f"is quantized by {method!r}, which is not supported ({', '.join(METHODS)} are)"
        raise CheckpointError(problem, path=path, remedy=INSTEAD)
    prefix = "quantization_config."
    return METHODS[method](Settings({prefix + key: value for key, value in settings.items()}, path, prefix))
