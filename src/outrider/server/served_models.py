"""Which models `outrider serve` has, and what they are called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from outrider.checkpoints.gguf.listing import models_and_drafters
from outrider.errors import UsageError


def served_models(named: Sequence[str], folder: Path | None, names: Sequence[str]) -> dict[str, list[str]]:
    """The names in the API of each model, by what it is loaded from; those that are named come first.

    Args:
        folder: of further models.
        names: as `--served-model-name` has them.

    Raises:
        UsageError: there is no model, two have one name, or a name belongs to none.
    """
    models = {model: served_name(model) for model in named}
    for model in models_in(folder) if folder else ():
        models.setdefault(model, Path(model).name.removesuffix(".gguf"))  # a link has its own name
    if not models:
        raise UsageError("there is no model to serve: name one, or a folder of them with --models DIR")
    given: dict[str, list[str]] = {model: [] for model in models}
    for each in names:
        alias, _, wanted = each.partition("=")
        found = [model for model, name in models.items() if wanted in (model, name)] if alias else []
        if not found and len(models) == 1:
            found, alias = list(models), each
        if len(found) != 1:
            known = ", ".join(models.values())
            raise UsageError(
                f"--served-model-name {each} does not say which of several models it is for: write NAME=MODEL, with "
                f"one of {known}"
            )
        given[found[0]].append(alias)
    served = {model: given[model] or [name] for model, name in models.items()}
    _check_names([name for of_model in served.values() for name in of_model])
    return served


def check_first(served: Mapping[str, Sequence[str]], own: Mapping[str, Any], *, given: bool) -> None:
    """Raises UsageError if the options of the first model do not fit.

    Args:
        own: these options: `lora`, `lora_drafters`, and `drafter` if it is a path, as LLM takes them.
        given: whether a model was named, and not only a folder.
    """
    lora = own["lora"]
    taken = {name for names in served.values() for name in names}
    if isinstance(lora, dict) and (found := lora.keys() & taken):
        raise UsageError(f"--lora {min(found)} has the name of the model: choose another, or --served-model-name")
    if not given and any(own.values()):
        raise UsageError("--lora, --lora-drafter and --drafter PATH are for the first MODEL: name it beside --models")


def models_in(folder: Path) -> list[str]:
    """The models of a folder: its GGUF files but drafters and encoders, and the folders in it that hold a model."""
    try:
        entries = sorted(folder.expanduser().iterdir())
    except OSError as error:
        raise UsageError(f"--models {folder} cannot be read ({error.strerror}): check its path") from error
    files, _ = models_and_drafters(entry.name for entry in entries if entry.is_file())
    folders = {entry.name for entry in entries if entry.is_dir() and _holds_a_model(entry)}
    found = [str(entry) for entry in entries if entry.name in folders or entry.name in files]
    if not found:
        raise UsageError(f"--models {folder} holds no model: put .gguf files or folders with config.json into it")
    return found


def served_name(model: str) -> str:
    """The name of a model in the API: as it was asked for; of a file or folder, its name without the suffix."""
    path = Path(model).expanduser()
    return path.resolve().name.removesuffix(".gguf") if path.exists() else model


def _holds_a_model(folder: Path) -> bool:
    if folder.name.lower().endswith("assistant"):  # a drafter, where `find_drafter` looks for it
        return False
    return (folder / "config.json").is_file() or any(models_and_drafters(file.name for file in folder.iterdir())[0])


def _check_names(names: Sequence[str]) -> None:
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UsageError(f"two models have the name {twice}: name one with --served-model-name NAME=MODEL")
