"""Quantize on load: floating-point weights as Q4_0 or Q8_0, made once per checkpoint and kept on disk as a pack.

A pack is two files in the user's cache folder. NAME.blocks holds the blocks of each quantized tensor, one tensor after
another; the checkpoint and the wanted quantization imply their names, formats and shapes. NAME.json is the report: what
the pack was made from, and each tensor's SHA-256 and error, in the order of the blocks. It is written last, and a pack
without it does not exist, so a crash leaves nothing that is taken for a pack. A lock keeps two processes from making
the same pack at once.

Three kinds of tensor stay as stored in the checkpoint: those that are quantized already (a QAT release's exact 4-bit
values), vectors, and small sensitive matrices (the router, the projection of the per-layer embedding). With q4_0 the
head (the embedding, unless there is another) and the tables are kept at 8 bits: the embedding and the per-layer
embedding, of which passes gather single rows.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import filelock
import numpy as np

from outrider.arrays import Bytes
from outrider.atomic_file import replacing
from outrider.backends import cpu
from outrider.backends.cpu.weights import release_pages
from outrider.checkpoints.checkpoint import BLOCKS, FLOAT_FORMATS, Checkpoint, Format, Tensor, bytes_as
from outrider.checkpoints.tensors import EMBEDDING, OWN_HEAD
from outrider.checkpoints.traffic import is_swept
from outrider.errors import CheckpointError
from outrider.user_cache import user_cache

Quantization = Literal["q4_0", "q8_0"]
QUANTIZATIONS: tuple[Quantization, ...] = ("q4_0", "q8_0")

_VERSION = 2
"""Raise it when the same checkpoint would be packed differently."""
_AT_8_BITS = (EMBEDDING, OWN_HEAD, "embed_tokens_per_layer.weight")
_AS_STORED = ("per_layer_model_projection.weight", "router.proj.weight", "masked_embedding.centroids.weight")
_WEIGHTS_PER_BLOCK, _ = BLOCKS["Q4_0"]  # as of Q8_0
_SPARE_BYTES = 1 << 28
"""Disk space that stays free."""
_ELSEWHERE = "set XDG_CACHE_HOME to a folder that can be written and has space, or load without quantizing"

Progress = Callable[[str, float], None]
"""Receives (stage, fraction done from 0 to 1)."""


@dataclass(frozen=True)
class Packed:
    """The tensors of a checkpoint, quantized, by name.

    `error` is the root-mean-square error of the quantized weights relative to their root mean square; `worst` is the
    tensor with the largest, and its error; `path` is the pack's, None if there was nothing to quantize.
    """

    tensors: Mapping[str, Tensor]
    path: Path | None
    error: float
    worst: tuple[str, float]


def quantized(
    checkpoint: Checkpoint, to: Quantization, pool: cpu.ThreadPool, progress: Progress = lambda *_: None
) -> Packed:
    """A checkpoint's tensors with the large floating-point matrices in blocks of `to`: from the cache, if it has them.

    Raises:
        CheckpointError: a weight is not a finite number, or the pack cannot be written or is damaged.
    """
    formats = {name: wanted for name, tensor in checkpoint.tensors.items() if (wanted := _wanted(tensor, to))}
    if not formats:
        return Packed(checkpoint.tensors, None, 0.0, ("", 0.0))
    folder = user_cache("packs")
    if folder is None:
        problem = "the quantized weights cannot be kept: this user has no home folder"
        raise CheckpointError(problem, remedy=f"Either {_ELSEWHERE}")
    source = _source_of(checkpoint, to)
    key = hashlib.sha256(json.dumps(source).encode()).hexdigest()
    path = folder / f"{checkpoint.path.stem}-{to}-{key[:12]}.blocks"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(path.with_suffix(".lock")):
            report = _report_of(path, source, formats) or _make(checkpoint, formats, path, source, pool, progress)
        made = _opened(checkpoint, formats, path, report)
    except OSError as error:
        problem = f"the quantized weights could not be kept ({error.strerror or error})"
        raise CheckpointError(problem, path=folder, remedy=f"Free some space, or {_ELSEWHERE}") from error
    errors = {name: entry["error"] for name, entry in report["tensors"].items()}
    worst = max(errors, key=lambda name: float(errors[name]))
    return Packed(dict(checkpoint.tensors) | made, path, report["error"], (worst, errors[worst]))


def _wanted(tensor: Tensor, to: Quantization) -> Format | None:
    """The format that a tensor is to be quantized to; None if it stays as stored."""
    matrix = len(tensor.shape) > 1 and not tensor.name.endswith(_AS_STORED)
    if not matrix or tensor.format not in FLOAT_FORMATS or tensor.shape[-1] % _WEIGHTS_PER_BLOCK:
        return None
    return "Q8_0" if to == "q8_0" or tensor.name in _AT_8_BITS else "Q4_0"


def _source_of(checkpoint: Checkpoint, to: Quantization) -> dict[str, Any]:
    """What identifies a pack's source: another checkpoint, or a changed file, makes another pack."""
    real = [file.resolve() for file in checkpoint.files]  # the hub's cache names what it holds by its hash
    facts = [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in real]
    files = [[file.name, *of_file] for file, of_file in zip(checkpoint.files, facts, strict=True)]
    return {"version": _VERSION, "to": to, "files": files}


def _report_of(path: Path, source: dict[str, Any], formats: dict[str, Format]) -> dict[str, Any] | None:
    """The report of a finished pack of this source; None if there is none."""
    try:
        report = json.loads(path.with_suffix(".json").read_text("utf-8"))
        fits = report["source"] == source and list(report["tensors"]) == list(formats)
        if fits and path.stat().st_size == report["bytes"]:
            return cast(dict[str, Any], report)
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return None


def _make(
    checkpoint: Checkpoint,
    formats: dict[str, Format],
    path: Path,
    source: dict[str, Any],
    pool: cpu.ThreadPool,
    progress: Progress,
) -> dict[str, Any]:
    """Write a pack; its report."""
    needed = sum(bytes_as(checkpoint.tensors[name].shape, format) for name, format in formats.items())
    free = shutil.disk_usage(path.parent).free
    if free < needed + _SPARE_BYTES:
        problem = f"has {free / 1e9:.1f} GB free, and the quantized weights take {needed / 1e9:.1f} GB"
        raise CheckpointError(problem, path=path.parent, remedy=f"Free some space, or {_ELSEWHERE}")
    tensors: dict[str, dict[str, Any]] = {}
    all_errors = all_squares = 0.0
    with replacing(path, locked=True) as partial, partial.open("wb") as file:
        for name, format in formats.items():
            blocks, error, squares = _blocks(checkpoint, name, format, pool)
            file.write(blocks.data)
            digest = hashlib.sha256(blocks.data).hexdigest()
            tensors[name] = {"sha256": digest, "error": _relative(error, squares)}
            all_errors, all_squares = all_errors + error, all_squares + squares
            progress("quantizing", file.tell() / needed)
        file.flush()
        os.fsync(file.fileno())
    report = {"source": source, "bytes": needed, "error": _relative(all_errors, all_squares), "tensors": tensors}
    with replacing(path.with_suffix(".json"), locked=True) as partial:
        partial.write_text(json.dumps(report, indent=1), "utf-8")
    return report


def _blocks(checkpoint: Checkpoint, name: str, format: Format, pool: cpu.ThreadPool) -> tuple[Bytes, float, float]:
    """One tensor's (bytes,) blocks, the sum of its squared errors, and that of its squared weights."""
    tensor = checkpoint.tensors[name]
    rows, columns, data = math.prod(tensor.shape[:-1]), tensor.shape[-1], tensor.data
    try:
        return cpu.quantize(format, tensor.format, rows, columns, data, pool)
    except ValueError as error:
        remedy = "The file is damaged, or its training diverged: download it again"
        problem = f"the tensor {name} cannot be quantized: {error}"
        raise CheckpointError(problem, path=checkpoint.path, remedy=remedy) from error
    finally:
        release_pages(data)


def _relative(error: float, squares: float) -> float:
    return math.sqrt(error / squares) if squares else 0.0


def _opened(
    checkpoint: Checkpoint, formats: dict[str, Format], path: Path, report: dict[str, Any]
) -> dict[str, Tensor]:
    """The tensors of a pack, checked by hash, but for the table of which passes gather rows: it is not read whole."""
    mapping = np.memmap(path, np.uint8, "r").view(np.ndarray)
    tensors: dict[str, Tensor] = {}
    end = 0
    for name, format in formats.items():
        shape = checkpoint.tensors[name].shape
        start, end = end, end + bytes_as(shape, format)
        tensors[name] = Tensor(name, format, shape, mapping[start:end])
    swept = [tensor for name, tensor in tensors.items() if is_swept(name, checkpoint.tensors)]
    with ThreadPoolExecutor(max_workers=min(os.cpu_count() or 1, 8)) as threads:
        digests = threads.map(lambda tensor: hashlib.sha256(tensor.data.data).hexdigest(), swept)
        for tensor, digest in zip(swept, digests, strict=True):
            if digest != report["tensors"][tensor.name]["sha256"]:
                problem = f"the tensor {tensor.name} differs from what was written"
                remedy = "The disk or its file system damaged it: delete the file, and it will be made again"
                raise CheckpointError(problem, path=path, remedy=remedy)
    return tensors
