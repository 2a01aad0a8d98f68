"""From what a person names (the demo, a file, a folder, a hub id, a model of Ollama's) to an opened checkpoint."""

from __future__ import annotations

import logging
from pathlib import Path

from outrider.checkpoints.checkpoint import Checkpoint
from outrider.checkpoints.demo import demo_path
from outrider.checkpoints.gguf.file import is_gguf
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
            *.safetensors, "ollama:NAME" (see `ollama`), or, if no such path exists, a hub id (see `hub`).

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
        is_folder, is_file = path.is_dir(), path.is_file()
        is_model = path.suffix.lower() == ".gguf" or (is_file and is_gguf(path))
    except (OSError, RuntimeError) as error:
        raise CheckpointError(f"cannot be read ({error})", path=source, remedy=_ACCEPTED) from error
    if is_folder:
        return open_folder(path)
    if is_file and is_model:
        return open_gguf(path)
    if is_file:
        raise CheckpointError("is not a kind of file that can be loaded", path=path, remedy=_ACCEPTED)
    if isinstance(source, str) and (wanted := parse_hub_id(source)):
        return _opened(fetch(wanted))
    raise CheckpointError("does not exist", path=path, remedy=_ACCEPTED)
