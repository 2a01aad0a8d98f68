"""What a path is that is no checkpoint: one sentence each, with what to do."""

from __future__ import annotations

from pathlib import Path

from outrider.checkpoints.checkpoint import BASE_MODEL
from outrider.checkpoints.hf.json_file import read_json
from outrider.errors import CheckpointError

_STARTS = {
    b"": ("is empty", "Download it again"),
    b"version https://git-lfs": ("is a pointer of Git LFS, not the file itself", "Fetch the file with: git lfs pull"),
    b"<": ("is a web page, not a model", "Download the file itself, not the page that shows it"),
}
"""How files begin -> what they are, what to do."""
_START_BYTES = 32
_PICKLED = (".bin", ".pt", ".pth", ".ckpt")


def unfit_file(path: Path, accepted: str) -> CheckpointError:
    """What a file is that is neither GGUF nor named .gguf. Raises OSError if it cannot be read.

    Args:
        accepted: what a person may pass, for the remedy.
    """
    beside = f"Pass its folder: {path.parent}"
    if path.suffix in (".safetensors", ".json") and (path.parent / "config.json").is_file():
        return CheckpointError("is one file of a model's folder", path=path, remedy=beside)
    if path.suffix in (".safetensors", ".json") and (path.parent / "adapter_config.json").is_file():
        return unfit_folder(path.parent, accepted)
    if path.suffix in _PICKLED:
        problem = "is a PyTorch file, which is not read since loading it can run code"
        return CheckpointError(problem, path=path, remedy="Use the model's *.safetensors or a GGUF file of it")
    problem, remedy = beginning(path) or ("is not a kind of file that can be loaded", accepted)
    return CheckpointError(problem, path=path, remedy=remedy)


def beginning(path: Path) -> tuple[str, str] | None:
    """What a file is by its first bytes, and what to do; None for none of `_STARTS`. Raises OSError."""
    with path.open("rb") as file:
        start = file.read(_START_BYTES).lstrip()
    return next(
        (found for begins, found in _STARTS.items() if (start.startswith(begins) if begins else not start)), None
    )


def unfit_folder(path: Path, accepted: str) -> CheckpointError:
    """What a folder is that has neither config.json nor a GGUF file."""
    if (path / "adapter_config.json").is_file():
        base = read_json(path / "adapter_config.json").get("base_model_name_or_path")
        of = f" of {base}" if isinstance(base, str) else ""
        problem, remedy = f"is a LoRA adapter{of}, not a model", BASE_MODEL
    elif (path / "tokenizer.json").is_file() or (path / "tokenizer.model").is_file():
        problem, remedy = "holds a tokenizer, and no config.json: it is not a whole model", accepted
    elif not any(path.iterdir()):
        problem, remedy = "is an empty folder", accepted
    else:
        problem, remedy = "has no config.json and no .gguf file", accepted
    return CheckpointError(problem, path=path, remedy=remedy)


def absent(path: Path, accepted: str) -> CheckpointError:
    """What there is where a path names neither file nor folder."""
    if path.is_symlink():
        problem, remedy = f"is a link to {path.readlink()}, which leads to no file", "Repair the link, or pass the file"
    elif path.exists():
        problem, remedy = "is neither a file nor a folder", accepted
    else:
        problem, remedy = "does not exist", accepted
    return CheckpointError(problem, path=path, remedy=remedy)
