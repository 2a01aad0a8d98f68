"""Opening a folder with config.json and *.safetensors as a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from outrider.arrays import Bytes
from outrider.checkpoints.checkpoint import FLOAT_FORMATS, TOKEN_ORDERING, Checkpoint, Tensor
from outrider.checkpoints.config import AssistantConfig, ModelConfig
from outrider.checkpoints.hf.compressed import check_scheme, unpacked
from outrider.checkpoints.hf.config import hf_config, is_untied
from outrider.checkpoints.hf.json_file import DAMAGED, read_json
from outrider.checkpoints.hf.mobile import mobile_tensors
from outrider.checkpoints.hf.mobile_config import is_mobile, mobile_modules, quantization_settings
from outrider.checkpoints.hf.names import neutral_name
from outrider.checkpoints.hf.safetensors_file import StoredTensor, read_safetensors
from outrider.checkpoints.sampling import sampling_of
from outrider.checkpoints.settings import Settings
from outrider.checkpoints.validate import expected_shapes, validate
from outrider.errors import CheckpointError

_INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"


def open_folder(path: Path) -> Checkpoint:
    """The checkpoint in a folder. Its weights stay in the files until they are used.

    Two kinds of small tensor are converted: Gemma 3's norms, stored less one, and a drafter's token ordering, stored as
    64-bit integers.

    Raises:
        CheckpointError: a file is missing, truncated or foreign, the model type is not supported, or the tensors do
            not fit the config.
    """
    config_path, generation_path = path / "config.json", path / "generation_config.json"
    if not config_path.is_file():
        remedy = "Pass the folder that holds config.json and the *.safetensors files"
        raise CheckpointError("has no config.json", path=path, remedy=remedy)
    generation, described = read_json(generation_path), read_json(config_path)
    quantization = described.pop("quantization_config", None)
    mobile = mobile_modules(quantization_settings(quantization, config_path)) if is_mobile(quantization) else None
    if quantization is not None and mobile is None:
        check_scheme(quantization if isinstance(quantization, dict) else {}, config_path)
    config = hf_config(Settings(described, config_path), Settings(generation, generation_path))
    untied = is_untied(Settings(described, config_path))
    files, stored = _read_weights(path)
    named = [(name, tensor) for tensor in stored if (name := neutral_name(tensor.name)) is not None]
    left_out = len(stored) - len(named)
    matrices: dict[str, Tensor] = {}
    if mobile is not None:
        named, matrices = mobile_tensors(named, mobile, expected_shapes(config, untied=True), path)
    plain = _tensors(path, config, named, packed=quantization is not None and mobile is None)
    tensors = validate(config, plain | matrices, path, untied=untied)
    tokenizer, recommended = path / "tokenizer.json", sampling_of(Settings(generation, generation_path))
    return Checkpoint(
        path,
        config,
        tensors,
        tokenizer if tokenizer.is_file() else None,
        (config_path, *files),
        recommended,
        left_out=left_out,
    )


def _tensors(
    path: Path, config: ModelConfig | AssistantConfig, named: list[tuple[str, StoredTensor]], *, packed: bool
) -> dict[str, Tensor]:
    """The text model's tensors by neutral name. With `packed`, matrices may be stored in compressed-tensors' parts."""
    gemma3 = isinstance(config, ModelConfig) and config.architecture == "gemma3"
    less_one = {name for name in expected_shapes(config) if gemma3 and name.endswith("norm.weight")}
    tensors: dict[str, Tensor] = {}
    parts: dict[str, dict[str, StoredTensor]] = {}
    for name, tensor in named:
        matrix, _, part = name.rpartition(".")
        if packed and part.startswith(("weight_", "input_")):
            parts.setdefault(f"{matrix}.weight", {})[part] = tensor
            continue
        if name in tensors:
            remedy = "Remove the files that are not the model's"
            raise CheckpointError(f"holds the tensor {name} twice", path=path, remedy=remedy)
        tensors[name] = _tensor(name, tensor, path, less_one=name in less_one)
    return tensors | {name: unpacked(name, of_matrix, path) for name, of_matrix in parts.items()}


def _read_weights(path: Path) -> tuple[list[Path], list[StoredTensor]]:
    """The weight files of a folder, and all their tensors, checked against the index if there is one."""
    index = _read_index(path)
    files = [path / name for name in dict.fromkeys(index.values())] or _unindexed(path)
    shards = {file.name: read_safetensors(file) for file in files}
    for name, file in index.items():
        if name not in shards[file]:
            problem = f"maps tensor {name} to {file}, which does not hold it"
            remedy = "The files are of different models: download all of them again"
            raise CheckpointError(problem, path=path / _INDEX, remedy=remedy)
    return files, [tensor for shard in shards.values() for tensor in shard.values()]


def _read_index(path: Path) -> dict[str, str]:
    """Tensor -> file name, as a folder's index maps them; empty if it has no index."""
    index = path / _INDEX
    if not index.is_file():
        return {}
    files = read_json(index).get("weight_map")
    if not isinstance(files, dict) or not files or not all(isinstance(file, str) for file in files.values()):
        raise CheckpointError("has no weight_map", path=index, remedy=DAMAGED)
    for name, file in files.items():
        # A name, not a path: an index must not reach outside its folder.
        if Path(file).name != file or not (path / file).is_file():
            problem = f"maps tensor {name} to {file!r}, which is not a file of this folder"
            raise CheckpointError(problem, path=index, remedy="A part of the model is missing: download it again")
    return files


def _unindexed(path: Path) -> list[Path]:
    """The weight files of a folder without an index."""
    files = [path / _SINGLE] if (path / _SINGLE).is_file() else sorted(path.glob("*.safetensors"))
    if len(files) == 1:
        return files
    problem = "has no *.safetensors file" if not files else f"has {len(files)} *.safetensors files and no {_INDEX}"
    remedy = "Pass a complete folder (PyTorch .bin files are not read, since loading them can run code)"
    raise CheckpointError(problem, path=path, remedy=remedy)


def _tensor(name: str, stored: StoredTensor, path: Path, *, less_one: bool) -> Tensor:
    if stored.dtype == "I64" and name == TOKEN_ORDERING:
        ids = stored.data.view("<i8")
        if len(ids) and not (ids.min() >= 0 and ids.max() < 1 << 31):
            problem = f"has token ids in {name} that are out of range"
            raise CheckpointError(problem, path=path, remedy="Download it again")
        return Tensor(name, "I32", stored.shape, _frozen(ids.astype("<i4")))
    if stored.dtype not in (FLOAT_FORMATS if name != TOKEN_ORDERING else ("I32",)):
        problem = f"stores tensor {stored.name} as {stored.dtype}, which is not supported"
        remedy = "Use a checkpoint stored as F32, F16 or BF16, as compressed-tensors integers, or as GGUF"
        raise CheckpointError(problem, path=path, remedy=remedy)
    tensor = Tensor(name, stored.dtype, stored.shape, stored.data)
    return Tensor(name, "F32", stored.shape, _frozen(np.float32(1) + tensor.float32())) if less_one else tensor


def _frozen(values: np.ndarray[Any, Any]) -> Bytes:
    data = values.reshape(-1).view(np.uint8)
    data.flags.writeable = False
    return data
