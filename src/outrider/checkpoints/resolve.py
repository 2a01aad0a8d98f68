"""From what a person names (the demo, a file, a folder) to an opened checkpoint."""

from __future__ import annotations

from pathlib import Path

from outrider.checkpoints.checkpoint import Checkpoint
from outrider.checkpoints.demo import demo_path
from outrider.checkpoints.gguf_reader import open_gguf
from outrider.checkpoints.safetensors_folder import open_folder
from outrider.errors import CheckpointError

_ACCEPTED = 'Pass "demo", the path of a .gguf file, or a folder with config.json and *.safetensors'


def open_checkpoint(source: str | Path) -> Checkpoint:
    """The checkpoint that `source` names: "demo", a .gguf file, or a folder with config.json and *.safetensors.

    Raises:
        CheckpointError: there is nothing of that kind there, or it cannot be loaded.
    """
    if source == "demo":
        return open_gguf(demo_path())
    try:
        path = Path(source).expanduser()
        is_folder, is_file = path.is_dir(), path.is_file()
    except (OSError, RuntimeError) as error:
        raise CheckpointError(f"cannot be looked up ({error})", path=source, remedy=_ACCEPTED) from error
    if is_folder:
        return open_folder(path)
    if is_file:
        if path.suffix.lower() == ".gguf":
            return open_gguf(path)
        raise CheckpointError("is not a kind of file that can be loaded", path=path, remedy=_ACCEPTED)
    if isinstance(source, str) and _looks_like_hub_id(source):
        raise CheckpointError(
            f"loading {source} from the hub is not supported yet",
            remedy="Download it (huggingface-cli download) and pass the folder or the .gguf file",
        )
    raise CheckpointError("does not exist", path=path, remedy=_ACCEPTED)


def _looks_like_hub_id(source: str) -> bool:
    """True for "owner/name", which could be a path too but does not exist as one."""
    owner, slash, name = source.partition("/")
    return (
        bool(owner and slash and name) and "/" not in name and owner not in (".", "..", "~") and not _is_file_name(name)
    )


def _is_file_name(name: str) -> bool:
    return name.lower().endswith((".gguf", ".safetensors", ".json"))
