"""From a target to its drafter: capture, train, cluster the head, export. An interrupted run resumes."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Any

import torch

from outrider import LLM
from outrider.checkpoints import open_checkpoint
from outrider.checkpoints.config import ModelConfig
from outrider.errors import CheckpointError, UsageError
from outrider.train.batches import Batches
from outrider.train.capture import capture, capture_shapes
from outrider.train.dataset import Dataset, read_spans
from outrider.train.export import export_folder, export_gguf
from outrider.train.head import build_head
from outrider.train.model import DrafterShape
from outrider.train.progress import FINISHING_SECONDS, Report, RunProgress
from outrider.train.prompts import endless_jobs, read_prompts, shipped_openings
from outrider.train.report import plot_curve, read_curve, write_card
from outrider.train.start import fitting_drafter, known_drafter, new_drafter
from outrider.train.trainer import Settings, Trainer

_FEW_TOKENS, _FEW_MINUTES = 50_000, 5.0
"""A run with less gets a warning: adapting a drafter took 90,000 tokens and 7 minutes (docs/training.md)."""


@dataclass(frozen=True)
class Recipe:
    """One run.

    Args:
        model: the target: "demo", a .gguf file, a folder, a hub id or "ollama:NAME".
        out: folder for `data/`, `training/`, `drafter/` (as Hugging Face publishes it), `drafter.gguf` and `curve.png`.
        prompts: a .jsonl or text file; None for the openings in the package.
        tokens: that the target generates for training.
        minutes: of training, earlier runs in `out` included.
        start: a drafter to adapt; None initializes one from the target.
        shape: of a new drafter.
        settings: of the training.
        threads: None for one per usable core.
        keep_checkpoint: whether the training state outlives the run, so that more minutes continue it.
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
    keep_checkpoint: bool = False

    @property
    def too_little(self) -> str | None:
        """A warning, if that is too little to learn from."""
        if self.tokens >= _FEW_TOKENS and self.minutes >= _FEW_MINUTES:
            return None
        return (
            f"{self.tokens:,} tokens and {self.minutes:g} minutes are too little for a drafter to learn from: adapting "
            "one takes some 90,000 tokens and 7 minutes, a new one more (see docs/training.md)"
        )


def make_drafter(
    recipe: Recipe, report: Report = lambda *_: None, announce: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """Run the steps that are not done yet; the run's facts (see `report.write_card`).

    Args:
        report: receives stage, share done and figures, often.
        announce: receives lines that remain: what is written where, and its size.

    Raises:
        UsageError: the prompts cannot be read, or `out` holds data or a drafter of another target.
        CheckpointError: the target or the drafter to adapt cannot be read, or they do not fit each other.
    """
    prompts = read_prompts(recipe.prompts) if recipe.prompts else shipped_openings()
    target = open_checkpoint(recipe.model)
    if not isinstance(target.config, ModelConfig):
        raise CheckpointError("is a drafter, not a model", path=target.path, remedy="Name the model that it drafts for")
    checkpoint, finished = recipe.out / "training" / "checkpoint.pt", recipe.out / "drafter" / "training.json"
    if finished.exists() and not checkpoint.exists():
        facts: dict[str, Any] = json.loads(finished.read_text("utf-8"))
        if (other := facts["provenance"]["target"]) != target.path.name:
            raise UsageError(f"{recipe.out} holds a drafter of {other}: use another folder")
        announce(f"{recipe.out}/drafter.gguf is finished. To train it further, give it as --from, with another --out")
        return facts
    known = fitting_drafter(target.config, recipe.start) if recipe.start else None
    if (warning := recipe.too_little) is not None:
        announce(f"warning: {warning}")
    progress = RunProgress(report)
    data = _captured(recipe, prompts, progress, announce)
    progress("loading", 60 * recipe.minutes + FINISHING_SECONDS)
    torch.set_num_threads(recipe.threads or torch.get_num_threads())
    torch.manual_seed(0)
    drafter = known_drafter(target, data, *known) if known else new_drafter(target, data, recipe.shape)
    batches = Batches(data, target.config, recipe.settings.steps)
    trainer = Trainer(drafter, data, batches, checkpoint.parent, recipe.settings)
    _train(recipe, trainer, progress, announce)
    final = trainer.evaluate(trainer.held_out)
    progress("ordering the head", 0.8 * FINISHING_SECONDS)
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
    progress("writing the drafter", 0.1 * FINISHING_SECONDS)
    export_folder(drafter.assistant, recipe.out / "drafter")
    export_gguf(drafter.assistant, recipe.out / "drafter.gguf")
    if curve := read_curve(recipe.out / "training"):
        plot_curve(curve, recipe.out / "curve.png")
    write_card(recipe.out / "drafter", facts)
    if not recipe.keep_checkpoint:
        checkpoint.unlink(missing_ok=True)
    progress("done", 0.0)
    return facts


def _captured(recipe: Recipe, prompts: list[str], progress: RunProgress, announce: Callable[[str], None]) -> Dataset:
    folder = recipe.out / "data"
    stored = sum(span.length - span.prompt_length for span in read_spans(folder))
    if stored >= recipe.tokens:
        return Dataset(folder)
    after = 60 * recipe.minutes + FINISHING_SECONDS
    llm = LLM(
        recipe.model,
        drafter=None,
        lookup=False,
        threads=recipe.threads,
        progress=lambda what, _: progress(f"loading: {what}", inf),  # how fast it will write is not known yet
    )
    announce(f"data: {folder}, some {recipe.tokens * capture_shapes(llm.config).row_bytes / 1e6:,.0f} MB, kept")
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
        left = max(recipe.tokens - stored - written, 0)
        progress(
            "capturing", left / speed + after, f"{stored + written:,} of {recipe.tokens:,} tokens, {speed:.0f} tok/s"
        )
        return left > 0

    seed = len(read_spans(folder))  # a resumed run must not generate the same texts again
    capture(llm, endless_jobs(prompts, llm.tokenizer, folder, seed), folder, provenance=provenance, advance=advance)
    return Dataset(folder)


def _train(recipe: Recipe, trainer: Trainer, progress: RunProgress, announce: Callable[[str], None]) -> None:
    recent, announced = [0.0] * recipe.settings.steps, False

    def announce_checkpoint() -> None:
        nonlocal announced
        if not announced and trainer.checkpoint.exists():
            announced = True
            kept = "kept" if recipe.keep_checkpoint else "removed at the end unless --keep-checkpoint is given"
            announce(f"checkpoint: {trainer.checkpoint}, {trainer.checkpoint.stat().st_size / 1e6:,.0f} MB, {kept}")

    def each(figures: dict[str, Any]) -> None:
        nonlocal recent
        announce_checkpoint()
        if figures.get("held_out"):
            return
        recent = [0.95 * old + 0.05 * new for old, new in zip(recent, figures["acceptance"], strict=True)]
        shown = "/".join(f"{rate:.0%}" for rate in recent)
        left = trainer.seconds_left + FINISHING_SECONDS
        progress("training", left, f"step {figures['step']}, loss {figures['loss']:.2f}, accepted {shown}")

    trainer.run(60 * recipe.minutes, report=each)
    announce_checkpoint()
    if trainer.step < (warm_up := recipe.settings.warm_up):
        announce(f"warning: training ended at step {trainer.step}, within its warm-up of {warm_up}: raise --minutes")


def _sha256(path: Path) -> str:
    """Of a file, or of a folder's weight files in the order of their names."""
    digest = hashlib.sha256()
    for file in sorted(path.glob("*.safetensors")) if path.is_dir() else [path]:
        with file.open("rb") as opened:
            while block := opened.read(1 << 22):
                digest.update(block)
    return digest.hexdigest()
