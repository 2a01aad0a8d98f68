"""Checkpoints from the Hugging Face hub, by id, in the hub's own cache.

    owner/name                the repository's safetensors, or its only (else its Q4_0 or Q4_K_M) GGUF file
    owner/name:Q8_0           the GGUF file whose name contains it
    owner/name@revision       a branch, tag or commit

A GGUF file comes with the repository's MTP drafter. Image encoders ("mmproj") and importance matrices are no models.

The library resumes interrupted downloads, honours HF_HUB_OFFLINE, HF_HOME and HF_ENDPOINT, and takes its token from
HF_TOKEN or from `hf auth login`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from outrider.checkpoints.gguf.listing import models_and_drafters
from outrider.checkpoints.gguf.split import part_names
from outrider.errors import CheckpointError

_ID = re.compile(
    r"(?P<repository>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@(?P<revision>[\w./-]+))?(?::(?P<variant>[\w.-]+))?"
)
_FOLDER = ["*.json", "*.jinja", "*.safetensors"]
_PREFERRED = ("Q4_0", "Q4_K_M", "Q8_0")


@dataclass(frozen=True)
class HubId:
    """A repository, its revision (None: the main branch) and a part of a GGUF file's name (None: see `_PREFERRED`)."""

    repository: str
    revision: str | None = None
    variant: str | None = None


def parse_hub_id(source: str) -> HubId | None:
    """The parts of a hub id; None if `source` is not one."""
    match = _ID.fullmatch(source)
    if match is None or match["repository"].lower().endswith((".gguf", ".safetensors", ".json")):
        return None
    return HubId(match["repository"], match["revision"], match["variant"])


def fetch(wanted: HubId) -> Path:
    """Download a checkpoint into the hub's cache; the path of its folder of safetensors or of its GGUF file.

    Raises:
        CheckpointError: it does not exist, is not public, or cannot be reached.
    """
    from huggingface_hub import hf_hub_download, snapshot_download
    from huggingface_hub.utils.tqdm import disable_progress_bars

    if not sys.stderr.isatty():
        disable_progress_bars()
    revision = wanted.revision or "main"
    try:
        files = _files_of(wanted, revision)
        if wanted.variant is None and any(name.endswith(".safetensors") for name in files):
            folder = snapshot_download(wanted.repository, revision=revision, allow_patterns=_FOLDER)
            return Path(folder)
        model, *drafter = _gguf_named(wanted, files)
        for part in (part for name in drafter for part in part_names(name)):
            hf_hub_download(wanted.repository, part, revision=revision)
        parts = [hf_hub_download(wanted.repository, part, revision=revision) for part in part_names(model)]
        return Path(parts[0])
    except CheckpointError:
        raise
    except Exception as error:
        raise _explained(wanted, error) from error


def _files_of(wanted: HubId, revision: str) -> list[str]:
    """The repository's files; without a connection, those in the cache."""
    from huggingface_hub import HfApi, constants, snapshot_download

    if not constants.is_offline_mode():
        try:
            # Without a connection list_repo_files fails only after six attempts and 23 seconds.
            found = HfApi().model_info(wanted.repository, revision=revision)
            return [file.rfilename for file in found.siblings or ()]
        except Exception as error:
            if not _unreachable(error):
                raise
    # With a pattern that matches no file, this returns the cached folder, complete or not.
    folder = snapshot_download(wanted.repository, revision=revision, local_files_only=True, allow_patterns=["-"])
    return [str(path.relative_to(folder)) for path in Path(folder).rglob("*") if path.is_file()]


def _unreachable(error: Exception) -> bool:
    """Whether the hub sent no answer. Matched by name too: the errors change with the library's HTTP client."""
    from huggingface_hub.errors import HfHubHTTPError

    if isinstance(error, HfHubHTTPError):  # an answer, although also an OSError
        return False
    return isinstance(error, OSError) or type(error).__name__.startswith(("Connect", "Timeout", "Read"))


def _gguf_named(wanted: HubId, files: list[str]) -> list[str]:
    """The wanted GGUF file, and the drafter that is to be beside it, if there is one; the first part for a split file.

    Raises:
        CheckpointError: no file, or more than one, is meant.
    """
    models, drafters = models_and_drafters(files)
    variant = (wanted.variant or "").lower()
    models = next(filter(None, ([f for f in names if variant in f.lower()] for names in (models, drafters))), [])
    if (model := _one_of(models, () if wanted.variant else _PREFERRED)) is not None:
        drafters = [] if model in drafters else drafters
        drafter = _one_of(drafters, (wanted.variant or "Q8_0", "Q8_0")) or next(iter(drafters), None)
        return [model] if drafter is None else [model, drafter]
    found = f"the hub's {wanted.repository} has {len(models)} GGUF files"
    found += f" whose name has {wanted.variant}" if wanted.variant else "" if models else " and no safetensors"
    found += f": {', '.join(sorted(models))}" if models else ""
    remedy = "Say which: owner/name:Q4_0, or a longer part of its name" if models else "Name another file or repository"
    raise CheckpointError(found, remedy=remedy)


def _one_of(names: list[str], variants: Iterable[str]) -> str | None:
    """The only name, else the only one that contains the first variant for which there is one."""
    for kept in (names, *([name for name in names if variant.lower() in name.lower()] for variant in variants)):
        if len(kept) == 1:
            return kept[0]
    return None


def _explained(wanted: HubId, error: Exception) -> CheckpointError:
    from huggingface_hub import errors

    name, first_line = wanted.repository, next(iter(str(error).strip().splitlines()), "no details")
    log_in = "set HF_TOKEN or run: hf auth login"
    kept = "try again: what was downloaded so far is kept"
    if isinstance(error, errors.GatedRepoError):
        problem = f"{name} is gated on the hub: its licence has to be accepted first"
        remedy = f"Accept it at https://huggingface.co/{name}, then {log_in}"
    elif isinstance(error, errors.RevisionNotFoundError):
        problem = f"{name} has no revision {wanted.revision} on the hub"
        remedy = "Name a branch, a tag or a commit that it has"
    elif isinstance(error, errors.RepositoryNotFoundError):
        problem = f"there is no {name} here, and none on the hub, or it is private"
        remedy = f"Check the name; for a private one {log_in}"
    elif isinstance(error, errors.LocalEntryNotFoundError | errors.OfflineModeIsEnabled):
        problem = f"there is no {name} here or in the hub's cache, and the hub cannot be reached"
        remedy = f"Connect and {kept}"
    else:
        problem = f"{name} could not be fetched from the hub ({type(error).__name__}: {first_line})"
        remedy = kept.capitalize()
    return CheckpointError(problem, remedy=remedy)
