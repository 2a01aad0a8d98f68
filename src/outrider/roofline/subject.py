"""What is planned for: the work of a checkpoint and its drafter, or of a published size that is not downloaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from outrider.checkpoints import AssistantConfig, Format, ModelConfig, open_checkpoint
from outrider.drafters.pairing import find_drafter
from outrider.errors import CheckpointError, UsageError
from outrider.models.assistant import check_pair
from outrider.roofline.sizes import SIZES, published_size
from outrider.roofline.work import Work, drafter_work, target_work


@dataclass(frozen=True)
class Subject:
    """A target and its drafter.

    Args:
        drafter: None for drafts from prompt lookup alone.
        drafted_by: where drafts come from, for a person.
    """

    name: str
    context_length: int
    target: Work
    drafter: Work | None
    drafted_by: str


def subject_of(model: str, weights: Format | None, drafter: str) -> Subject:
    """A published size, or a checkpoint.

    Args:
        model: one of `SIZES`, in any case of its letters, unless a file or folder of that name exists; or a checkpoint.
        weights: the format of a published size's matrices; None for Q4_0.
        drafter: "auto", and for a checkpoint "off" or a path.

    Raises:
        UsageError: the drafter is given for a size, or the format for a checkpoint, or as `checkpoint_subject`.
    """
    if is_size(model):
        if drafter != "auto":
            raise UsageError(f"--drafter needs a checkpoint: {model} is planned with its published drafter")
        return sized_subject(model, weights or "Q4_0")
    if weights is not None:
        raise UsageError(f"--weights is for published sizes: {model} has formats of its own")
    try:
        return checkpoint_subject(model, drafter)
    except CheckpointError as error:
        if "/" in model or Path(model).exists():
            raise
        raise UsageError(f"{error} The published sizes are {', '.join(SIZES)}.") from error


def is_size(model: str) -> bool:
    """Whether a published size is meant. A file or folder of that name is not."""
    return model.lower() in {size.lower() for size in SIZES} and not Path(model).exists()


def sized_subject(name: str, weights: Format) -> Subject:
    """A published size with its drafter, both with their matrices in one format; see `sizes.published_size`."""
    size = published_size(name, weights)
    drafter = drafter_work(size.drafter_tensors, size.drafter_config, size.config)
    title = f"Gemma 4 {name.upper()}, weights in {weights}"
    target = target_work(size.tensors, size.config)
    return Subject(title, size.config.context_length, target, drafter, "its published MTP drafter")


def checkpoint_subject(model: str, drafter: str) -> Subject:
    """A checkpoint's target, from its tensors' shapes and formats; no weight is read.

    Args:
        drafter: "auto" for the one that is found beside it, "off", or a path.

    Raises:
        UsageError: the checkpoint is itself a drafter.
        CheckpointError: as open_checkpoint, or the drafter does not fit.
    """
    checkpoint = open_checkpoint(model)
    config = checkpoint.config
    if not isinstance(config, ModelConfig):
        raise UsageError(f"{model} is a drafter: give the model that it drafts for, and --drafter {model}")
    path: Path | str | None = None
    drafted_by = "prompt lookup alone"
    if drafter == "auto":
        found = find_drafter(model, checkpoint.path, config)
        if found.path is not None:
            path, drafted_by = found.path, found.why
    elif drafter != "off":
        path, drafted_by = drafter, drafter
    work = None
    if path is not None:
        pair = open_checkpoint(path)
        if not isinstance(pair.config, AssistantConfig):
            raise UsageError(f"{path} is no MTP drafter: --drafter takes one, or auto, or off")
        check_pair(config, pair.config)
        work = drafter_work(pair.tensors, pair.config, config)
    target = target_work(checkpoint.tensors, config)
    return Subject(checkpoint.path.name, config.context_length, target, work, drafted_by)
