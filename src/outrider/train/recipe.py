"""From a target to its drafter: capture, train, cluster the head, export. An interrupted run resumes."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from outrider import LLM
from outrider.checkpoints import open_checkpoint
from outrider.checkpoints.config import ModelConfig
from outrider.train.batches import Batches
from outrider.train.capture import capture
from outrider.train.dataset import Dataset, read_spans
from outrider.train.export import export_folder, export_gguf
from outrider.train.head import build_head
from outrider.train.model import DrafterShape
from outrider.train.prompts import endless_jobs, read_prompts, shipped_openings
from outrider.train.report import plot_curve, read_curve, write_card
from outrider.train.start import known_drafter, new_drafter
from outrider.train.trainer import Settings, Trainer

Progress = Callable[[str, float, str], None]
"""Receives (stage, fraction done from 0 to 1, figures)."""


@dataclass(frozen=True)
class Recipe:
    """One run.

    Args:
        model: the target: "demo", a .gguf file, a folder or a hub id.
        out: folder for `data/`, `training/`, `drafter/` (as Hugging Face publishes it), `drafter.gguf` and `curve.png`.
        prompts: a .jsonl or text file; None for the openings in the package.
        tokens: that the target generates for training.
        minutes: of training, earlier runs in `out` included.
        start: a drafter to adapt; None initializes one from the target.
        shape: of a new drafter.
        settings: of the training.
        threads: None for all cores.
    """

    model: str
    out: Path
    prompts: Path | None = None
    tokens: int = 500_000
    minutes: float = 60.0
    start: str | None = None
    shape: DrafterShape = field(default_factory=DrafterShape)
    settings: Settings = field(default_factory=Settings)
    threads: int | None = None


def make_drafter(recipe: Recipe, progress: Progress = lambda *_: None) -> dict[str, Any]:
    """Run the steps that are not done yet; the run's facts (see `report.write_card`).

    Raises:
        UsageError: the prompts cannot be read, or `out` holds data of another target.
        CheckpointError: the target or the drafter to adapt cannot be read, or they do not fit each other.
    """
    prompts = read_prompts(recipe.prompts) if recipe.prompts else shipped_openings()
    data = _captured(recipe, prompts, progress)
    torch.set_num_threads(recipe.threads or torch.get_num_threads())
    torch.manual_seed(0)
    target = open_checkpoint(recipe.model)
    assert isinstance(target.config, ModelConfig)
    drafter = known_drafter(target, data, recipe.start) if recipe.start else new_drafter(target, data, recipe.shape)
    batches = Batches(data, target.config, recipe.settings.steps)
    trainer = Trainer(drafter, data, batches, recipe.out / "training", recipe.settings)
    _train(recipe, trainer, progress)
    final = trainer.evaluate(trainer.held_out)
    progress("clustering the head", 0.0, "")
    head = build_head(drafter, data, batches, trainer.training, trainer.held_out, recipe.settings.steps)
    facts = {
        "provenance": data.provenance,
        "tokens": sum(span.length - span.prompt_length for span in data.spans),
        "sequences": len(data.spans),
        "steps": recipe.settings.steps,
        "trained": sum(p.numel() for p in drafter.parameters() if p.requires_grad),
        "held_out": final,
        "head": head,
    }
    export_folder(drafter.assistant, recipe.out / "drafter")
    export_gguf(drafter.assistant, recipe.out / "drafter.gguf")
    write_card(recipe.out / "drafter", facts)
    if curve := read_curve(recipe.out / "training"):
        plot_curve(curve, recipe.out / "curve.png")
    progress("done", 1.0, "")
    return facts


def _captured(recipe: Recipe, prompts: list[str], progress: Progress) -> Dataset:
    folder = recipe.out / "data"
    had = sum(span.length - span.prompt_length for span in read_spans(folder))
    if had >= recipe.tokens:
        return Dataset(folder)
    llm = LLM(recipe.model, drafter=None, lookup=False, threads=recipe.threads)
    provenance = {
        "target": llm.path.name,
        "sha256": _sha256(llm.path),
        "prompts": recipe.prompts.name if recipe.prompts else "the openings that ship with outrider",
    }
    started, written = time.monotonic(), 0

    def advance(count: int) -> bool:
        nonlocal written
        written += count
        speed = written / (time.monotonic() - started)
        progress("capturing", (had + written) / recipe.tokens, f"{speed:.0f} tok/s")
        return had + written < recipe.tokens

    seed = len(read_spans(folder))  # a resumed run must not generate the same texts again
    capture(llm, endless_jobs(prompts, llm.tokenizer, folder, seed), folder, provenance=provenance, advance=advance)
    return Dataset(folder)


def _train(recipe: Recipe, trainer: Trainer, progress: Progress) -> None:
    recent = [0.0] * recipe.settings.steps

    def each(figures: dict[str, Any]) -> None:
        nonlocal recent
        if figures.get("held_out"):
            return
        recent = [0.95 * old + 0.05 * new for old, new in zip(recent, figures["acceptance"], strict=True)]
        shown = "/".join(f"{rate:.0%}" for rate in recent)
        progress("training", trainer.done, f"step {figures['step']}, loss {figures['loss']:.2f}, accepted {shown}")

    trainer.run(60 * recipe.minutes, report=each)


def _sha256(path: Path) -> str:
    """Of a file, or of a folder's weight files in the order of their names."""
    digest = hashlib.sha256()
    for file in sorted(path.glob("*.safetensors")) if path.is_dir() else [path]:
        with file.open("rb") as opened:
            while block := opened.read(1 << 22):
                digest.update(block)
    return digest.hexdigest()
