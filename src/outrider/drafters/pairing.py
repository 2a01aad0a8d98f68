"""Finds the drafter that belongs to a model."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from pathlib import Path

from outrider.checkpoints import open_checkpoint
from outrider.checkpoints.config import ModelConfig
from outrider.checkpoints.hub import parse_hub_id
from outrider.checkpoints.ollama import find_ollama, is_ollama
from outrider.drafters.registry import kind_of
from outrider.errors import CheckpointError

_OF_DEMO = "from outrider-demo-drafter"
_DEMO_BYTES = 253_113_024
_DEMO_SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
"""The file that the demo's drafter was trained for."""


@dataclass(frozen=True)
class FoundDrafter:
    """A drafter's path, or None, and the reason as a sentence."""

    path: Path | None
    why: str


def choose_drafter(source: str | Path, path: Path, config: ModelConfig, wanted: str | Path | None) -> FoundDrafter:
    """The MTP drafter: the one that belongs to the model, none, or the given one. As `find_drafter`."""
    if wanted in (None, "off", "none"):
        return FoundDrafter(None, "no MTP drafter wanted")
    if wanted == "auto":
        return find_drafter(source, path, config)
    return FoundDrafter(open_checkpoint(wanted).path, f"{wanted}, as requested")


def find_drafter(source: str | Path, model: Path, config: ModelConfig) -> FoundDrafter:
    """The drafter of the model at `model`, which the caller named `source`.

    Searched in this order: the draft layer of a model of Ollama's; `mtp-*.gguf` and `*-assistant*.gguf` beside a .gguf
    file or in a folder; a subfolder `assistant`; a folder beside the model, named like it with `-assistant` at the end;
    the package outrider-demo-drafter, for the demo's file, wherever it lies; `NAME-assistant` on the hub, for a model
    from there. One that cannot be read or does not fit is skipped, and `why` names the problem.
    """
    skipped = []
    for path, where in _candidates(source, model):
        name = path if isinstance(path, str) else path.name
        try:
            checkpoint = open_checkpoint(path)
            found = kind_of(checkpoint.config)
            if found is None:
                continue
            found.check(config, checkpoint.config)
        except CheckpointError as problem:
            if isinstance(path, Path):  # a repository that the hub does not have is no problem
                skipped.append(f"{name}: {problem}")
            continue
        return FoundDrafter(checkpoint.path, f"{name}, {where}")
    reason = f" ({'; '.join(skipped)})" if skipped else ""
    remedy = "outrider train-drafter makes one"
    if _demo_drafter() is None and (source == "demo" or is_demo(model)):
        remedy = "The demo's is a package of its own: pip install outrider-demo-drafter"
    return FoundDrafter(None, f"no MTP drafter found{reason}: drafts come from lookup. {remedy}")


def _candidates(source: str | Path, model: Path) -> Iterator[tuple[Path | str, str]]:
    of_demo = _demo_drafter()
    if source == "demo":
        if of_demo is not None:
            yield of_demo, _OF_DEMO
        return
    if isinstance(source, str) and is_ollama(source) and (draft := find_ollama(source).draft) is not None:
        yield draft, f"the draft layer of {source}"
    folder, where = (model, "in the model's folder") if model.is_dir() else (model.parent, "beside the model")
    for pattern in ("mtp-*.gguf", "*-assistant*.gguf", "*-[Mm][Tt][Pp]*.gguf", "[Mm][Tt][Pp]/*.gguf"):
        yield from ((path, where) for path in sorted(folder.glob(pattern)) if path != model)
    if model.is_dir() and (inside := model / "assistant").is_dir():
        yield inside, where
    if model.is_dir() and (sibling := model.with_name(f"{model.name}-assistant")).is_dir():
        yield sibling, "beside the model"
    if of_demo is not None and is_demo(model):
        yield of_demo, _OF_DEMO
    if isinstance(source, str) and not Path(source).exists() and (wanted := parse_hub_id(source)):
        yield f"{wanted.repository}-assistant", "from the hub"


def _demo_drafter() -> Path | None:
    """The file that the distribution outrider-demo-drafter installs, where it is installed."""
    try:
        return Path(import_module("outrider_demo_drafter").DRAFTER)
    except ImportError:
        return None


def is_demo(model: Path) -> bool:
    """Whether a file is the demo's, by its hash. Only a file of the same size is read."""
    try:
        found = model.stat()
        return model.is_file() and found.st_size == _DEMO_BYTES and _sha256(model, found.st_mtime_ns) == _DEMO_SHA256
    except OSError:
        return False


@lru_cache(maxsize=8)
def _sha256(path: Path, _changed: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
