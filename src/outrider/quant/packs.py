"""Quantize on load: floating-point weights as Q4_0 or Q8_0, made once per checkpoint and kept on disk as a pack.

A pack is two files in the user's cache folder. The first is a GGUF file of the quantized tensors, under their neutral
names. The second, a .json, names what it was made from, each tensor's error and SHA-256, and is written last: a pack
without it does not exist. So a crash in the middle leaves nothing that is taken for a pack, and a lock keeps two
processes from making the same one at once.

What stays as the checkpoint stores it: tensors that are quantized already (a QAT release's exact 4-bit values),
vectors, and matrices that are small and sensitive (the router, the projection of the per-layer embedding). What is kept
at 8 bits when the rest is at 4: the embedding, which is also the head, and the per-layer embedding, of which single
rows are read.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import filelock
import numpy as np
import platformdirs
from gguf import GGMLQuantizationType, GGUFWriter

from outrider.backends import cpu
from outrider.backends.cpu.weights import release_pages
from outrider.checkpoints.checkpoint import BLOCKS, Checkpoint, Format, Tensor
from outrider.checkpoints.gguf.file import GGUFFile
from outrider.errors import CheckpointError

Quantization = Literal["q4_0", "q8_0"]
QUANTIZATIONS: tuple[Quantization, ...] = ("q4_0", "q8_0")

_VERSION = 1
"""To be raised when the same checkpoint would be packed differently."""
_FLOATS = ("F32", "F16", "BF16")
_AT_8_BITS = ("embed_tokens.weight", "embed_tokens_per_layer.weight")
_AS_STORED = ("per_layer_model_projection.weight", "router.proj.weight", "masked_embedding.centroids.weight")
_GATHERED = "embed_tokens_per_layer.weight"
_BLOCK = 32
_NEEDED_BESIDE = 1 << 28
"""Bytes of disk that are left free."""

Told = Callable[[str, float], None]


@dataclass(frozen=True)
class Packed:
    """The tensors of a checkpoint, quantized, by name.

    `error` is the root of the mean square error of what was quantized, relative to the root of its mean square;
    `worst` names the tensor with the largest, and says how large; `path` is the pack, None if nothing had to be done.
    """

    tensors: Mapping[str, Tensor]
    path: Path | None
    error: float
    worst: tuple[str, float]


def quantized(checkpoint: Checkpoint, to: Quantization, pool: cpu.ThreadPool, told: Told = lambda *_: None) -> Packed:
    """A checkpoint's tensors with the large floating-point matrices in blocks of `to`; from the cache, once made.

    Args:
        told: called with (what, fraction from 0 to 1).

    Raises:
        CheckpointError: a weight is not a finite number, or the pack cannot be written; the message says what to do.
    """
    formats = {name: wanted for name, tensor in checkpoint.tensors.items() if (wanted := _wanted(tensor, to))}
    if not formats:
        return Packed(checkpoint.tensors, None, 0.0, ("", 0.0))
    source = _source_of(checkpoint, to)
    folder = platformdirs.user_cache_path("outrider") / "packs"
    key = hashlib.sha256(json.dumps(source).encode()).hexdigest()
    path = folder / f"{checkpoint.path.stem}-{to}-{key[:12]}.gguf"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(path.with_suffix(".lock")):
            report = _report_of(path, source)
            if report is None:
                report = _make(checkpoint, formats, path, source, pool, told)
        made = _opened(path, report)
    except OSError as error:
        raise CheckpointError(
            f"the quantized weights could not be kept ({error.strerror or error})",
            path=folder,
            remedy="Free some space or set XDG_CACHE_HOME to a folder that can be written, or load without quantizing",
        ) from error
    tensors = {name: made.get(name, tensor) for name, tensor in checkpoint.tensors.items()}
    errors = {name: entry["error"] for name, entry in report["tensors"].items()}
    worst = max(errors, key=lambda name: float(errors[name]))
    return Packed(tensors, path, report["error"], (worst, errors[worst]))


def _wanted(tensor: Tensor, to: Quantization) -> Format | None:
    """What a tensor is to be quantized to, or None if it stays as it is."""
    if tensor.format not in _FLOATS or len(tensor.shape) < 2 or tensor.shape[-1] % _BLOCK:
        return None
    if tensor.name.endswith(_AS_STORED):
        return None
    return "Q8_0" if to == "q8_0" or tensor.name in _AT_8_BITS else "Q4_0"


def _source_of(checkpoint: Checkpoint, to: Quantization) -> dict[str, Any]:
    """What a pack is made from: another file, or the same one changed, gives another."""
    files = []
    for file in checkpoint.files:
        real = file.resolve()  # the hub's cache names what it holds by its hash
        facts = real.stat()
        files.append([file.name, real.name, facts.st_size, facts.st_mtime_ns])
    return {"version": _VERSION, "to": to, "files": files}


def _report_of(path: Path, source: dict[str, Any]) -> dict[str, Any] | None:
    """The report of a finished pack, or None if there is none that fits."""
    try:
        report = json.loads(path.with_suffix(".json").read_text("utf-8"))
        if report["source"] == source and path.stat().st_size == report["bytes"]:
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
    told: Told,
) -> dict[str, Any]:
    sizes = {name: _bytes_as(checkpoint.tensors[name], kind) for name, kind in formats.items()}
    _check_room(path.parent, sum(sizes.values()))
    partial = path.with_suffix(".partial")
    try:
        entries = dict(_write(checkpoint, formats, sizes, partial, pool, told))
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    error, total = (sum(entry[key] for entry in entries.values()) for key in ("squared_error", "squares"))
    report = {
        "source": source,
        "bytes": path.stat().st_size,
        "error": math.sqrt(error / total) if total else 0.0,
        "tensors": {
            name: {
                "sha256": entry["sha256"],
                "error": math.sqrt(entry["squared_error"] / entry["squares"]) if entry["squares"] else 0.0,
            }
            for name, entry in entries.items()
        },
    }
    half_way = path.with_suffix(".json.partial")
    half_way.write_text(json.dumps(report, indent=1), "utf-8")
    half_way.replace(path.with_suffix(".json"))
    return report


def _write(
    checkpoint: Checkpoint,
    formats: dict[str, Format],
    sizes: dict[str, int],
    path: Path,
    pool: cpu.ThreadPool,
    told: Told,
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Quantizes tensor after tensor into a GGUF file; yields each one's name, hash and error."""
    writer = GGUFWriter(path, "outrider-pack")
    for name, kind in formats.items():
        shape = checkpoint.tensors[name].shape
        weights, size = BLOCKS[kind]
        raw = (*shape[:-1], shape[-1] // weights * size)
        writer.add_tensor_info(name, raw, np.dtype(np.uint8), sizes[name], GGMLQuantizationType[kind])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    done, whole = 0, sum(sizes.values())
    for name, kind in formats.items():
        tensor = checkpoint.tensors[name]
        rows, columns, data = math.prod(tensor.shape[:-1]), tensor.shape[-1], tensor.data
        try:
            blocks, error, squares = cpu.quantize(kind, tensor.format, rows, columns, data, pool)
        except ValueError as problem:
            raise CheckpointError(
                f"the tensor {name} cannot be quantized: {problem}",
                path=checkpoint.path,
                remedy="The file is damaged, or was trained to nothing: download it again",
            ) from problem
        release_pages(data)
        writer.write_tensor_data(blocks)
        done += sizes[name]
        told("quantizing", done / whole)
        yield name, {"sha256": hashlib.sha256(blocks.data).hexdigest(), "squared_error": error, "squares": squares}
    assert writer.fout is not None
    for file in writer.fout:
        file.flush()
        os.fsync(file.fileno())
    writer.close()


def _opened(path: Path, report: dict[str, Any]) -> dict[str, Tensor]:
    """The tensors of a pack, checked by hash; of the one that is only gathered from, the file's size must do."""
    table = GGUFFile(path).table
    tensors = {name: Tensor(name, entry.format, entry.shape, entry.data) for name, entry in table.items()}

    def intact(name: str) -> bool:
        found = hashlib.sha256(tensors[name].data.data).hexdigest()
        return bool(found == report["tensors"][name]["sha256"])

    names = [name for name in report["tensors"] if name != _GATHERED]
    with ThreadPoolExecutor(max_workers=min(os.cpu_count() or 1, 8)) as threads:
        wrong = [name for name, right in zip(names, threads.map(intact, names), strict=True) if not right]
    if wrong:
        raise CheckpointError(
            f"the tensor {wrong[0]} is not what was written",
            path=path,
            remedy="The disk or its file system damaged it: delete the file, and it will be made again",
        )
    return tensors


def _bytes_as(tensor: Tensor, kind: Format) -> int:
    weights, size = BLOCKS[kind]
    return math.prod(tensor.shape) // weights * size


def _check_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed + _NEEDED_BESIDE:
        raise CheckpointError(
            f"has {free / 1e9:.1f} GB free, and the quantized weights take {needed / 1e9:.1f} GB",
            path=folder,
            remedy="Free some space or set XDG_CACHE_HOME to a folder that has it, or load without quantizing",
        )
