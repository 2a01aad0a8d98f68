"""From what a person names (the demo, a file, a folder, a hub id, a model of Ollama's) to an opened checkpoint."""

from __future__ import annotations

import logging
from pathlib import Path

from outrider.checkpoints.checkpoint import Checkpoint
from outrider.checkpoints.demo import demo_path
from outrider.checkpoints.foreign import absent, unfit_file, unfit_folder
from outrider.checkpoints.gguf.file import is_gguf
from outrider.checkpoints.gguf.listing import models_and_drafters
from outrider.checkpoints.gguf.reader import open_gguf
from outrider.checkpoints.hf.folder import open_folder
from outrider.checkpoints.hub import fetch, parse_hub_id
from outrider.checkpoints.ollama import is_ollama, open_ollama
from outrider.errors import CheckpointError

_log = logging.getLogger("outrider.checkpoints")
_ACCEPTED = (
    'Pass "demo", a .gguf file, a folder with config.json and *.safetensors, a hub id (owner/name), or ollama:NAME'
)


def open_checkpoint(source: str | Path) -> Checkpoint:
    """The checkpoint that `source` names.

    Args:
        source: "demo", a GGUF file (which needs no suffix, as in Ollama's store), a folder with config.json and
            *.safetensors or with one GGUF model, "ollama:NAME" (see `ollama`), or, if no such path exists, a hub id
            (see `hub`).

    Raises:
        CheckpointError: `source` is none of these, or cannot be loaded.
    """
    checkpoint = _opened(source)
    if checkpoint.left_out:
        encoders = f"{checkpoint.left_out} tensors of its vision and audio encoders are left out"
        _log.info("%s: only the text model is loaded; %s", checkpoint.path, encoders)
    return checkpoint


def _opened(source: str | Path) -> Checkpoint:
    if source == "demo":
        return open_gguf(demo_path())
    if isinstance(source, str) and is_ollama(source):
        return open_ollama(source)
    try:
        path = Path(source).expanduser()
        found = _model_at(path)
        wanted = parse_hub_id(source) if isinstance(source, str) and not path.is_symlink() else None
        if found is None and wanted is None:
            raise absent(path, _ACCEPTED)
    except (OSError, RuntimeError, ValueError) as error:
        raise CheckpointError(f"cannot be read ({error})", path=source, remedy=_ACCEPTED) from error
    if found is not None:
        return open_folder(found) if found.is_dir() else open_gguf(found)
    assert wanted is not None
    return _opened(fetch(wanted))


def _model_at(path: Path) -> Path | None:
    """The folder of safetensors or the GGUF file that a path means; None if nothing is there.

    Raises:
        CheckpointError: there is something else. OSError: it cannot be read.
    """
    if path.is_file():
        if path.suffix.lower() == ".gguf" or is_gguf(path):
            return path
        raise unfit_file(path, _ACCEPTED)
    if not path.is_dir() or (path / "config.json").is_file():
        return path if path.is_dir() else None
    names = [file.name for file in path.iterdir() if file.suffix.lower() == ".gguf"]
    models, drafters = models_and_drafters(names)
    files = models or drafters or sorted(names)
    if not files:
        raise unfit_folder(path, _ACCEPTED)
    if len(files) > 1:
        problem = f"holds {len(files)} GGUF files: {', '.join(files)}"
        raise CheckpointError(problem, path=path, remedy="Pass one of them")
    return path / files[0]
