"""From what a person names (a folder, a file, an id of the hub) to an opened adapter."""

from __future__ import annotations

import logging
from pathlib import Path

from outrider.checkpoints.adapters.adapter import Adapter
from outrider.checkpoints.adapters.gguf import open_gguf_adapter
from outrider.checkpoints.adapters.peft import CONFIG, open_peft
from outrider.checkpoints.config import ModelConfig
from outrider.checkpoints.gguf.file import is_gguf
from outrider.checkpoints.hub import fetch, parse_hub_id
from outrider.errors import CheckpointError

_log = logging.getLogger("outrider.checkpoints")
_ACCEPTED = f"Pass a folder with {CONFIG} and adapter_model.safetensors, a GGUF adapter, or a hub id (owner/name)"


def open_adapter(source: str | Path, config: ModelConfig) -> Adapter:
    """The LoRA adapter that `source` names.

    Args:
        source: a folder as PEFT saves it, a GGUF file as llama.cpp's converter writes it, or, if no such path exists, a
            hub id (see `hub`).
        config: of the model that it is for.

    Raises:
        CheckpointError: `source` is none of these, cannot be loaded, or was made for another model.
    """
    adapter = _opened(source, config)
    if adapter.left_out:
        what = "of vision and audio encoders, or of keys and values that no layer computes, are left out"
        _log.info("%s: %d adapted matrices %s", adapter.path, adapter.left_out, what)
    return adapter


def _opened(source: str | Path, config: ModelConfig) -> Adapter:
    try:
        path = Path(source).expanduser()
        if path.is_dir():
            return open_peft(path, config)
        if path.is_file() and is_gguf(path):
            return open_gguf_adapter(path, config)
        is_file = path.is_file()
    except (OSError, RuntimeError) as error:
        raise CheckpointError(f"cannot be read ({error})", path=source, remedy=_ACCEPTED) from error
    if is_file:
        raise CheckpointError("is not a kind of file that can be loaded", path=path, remedy=_ACCEPTED)
    if isinstance(source, str) and (wanted := parse_hub_id(source)):
        return _opened(fetch(wanted), config)
    raise CheckpointError("does not exist", path=path, remedy=_ACCEPTED)
