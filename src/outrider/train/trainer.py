"""The training loop. It can be interrupted and resumed at any time."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import torch

from outrider.atomic_file import replacing
from outrider.errors import UsageError
from outrider.train.batches import Batches
from outrider.train.dataset import Dataset, Span
from outrider.train.model import Drafter
from outrider.train.objective import candidates_of, rounds_of

_HELD_OUT_OF = 32
"""One of this many sequences is held out."""
_EVALUATE_EVERY = 200
"""Steps between evaluations on the held-out sequences."""
_SAVE_SECONDS = 180.0
"""Between checkpoints: the most that a killed run loses."""


@dataclass(frozen=True)
class Settings:
    """Hyperparameters.

    After `warm_up` steps the learning rate decays from `rate` to a tenth of it, along a cosine over `total_steps` or
    over the run's time, whichever ends first: a run that ends at a high rate loses what the decay gains.
    """

    steps: int = 3
    rate: float = 1.5e-3
    rows: int = 1500  # rounds per batch, at least
    negatives: int = 3000
    total_steps: int = 4000
    warm_up: int = 100
    weight_decay: float = 0.01


class Trainer:
    """Trains one drafter on one dataset.

    Args:
        folder: for `checkpoint.pt` and `curve.jsonl`; an existing checkpoint is resumed.

    Raises:
        UsageError: too few of the data's sequences are long enough, or the checkpoint is of another drafter.
    """

    def __init__(self, drafter: Drafter, data: Dataset, batches: Batches, folder: Path, settings: Settings) -> None:
        self.drafter, self.settings, self._batches = drafter, settings, batches
        self.checkpoint, self._curve = folder / "checkpoint.pt", folder / "curve.jsonl"
        usable = batches.usable(data.spans)
        self.training = [s for i, s in enumerate(usable) if i % _HELD_OUT_OF]
        self.held_out = [s for i, s in enumerate(usable) if i % _HELD_OUT_OF == 0]
        if not self.training:
            raise UsageError(
                f"{len(usable)} of the texts are long enough to train on, and two are needed: raise --tokens"
            )
        named = {p: w for p, w in drafter.named_parameters() if w.requires_grad}
        head = [w for p, w in named.items() if p == "active_head"]
        rest = [w for p, w in named.items() if p != "active_head"]
        self._optimizer = torch.optim.AdamW(
            [{"params": rest, "scale": 1.0}, {"params": head, "scale": 0.3}],
            lr=settings.rate,
            betas=(0.9, 0.98),
            weight_decay=settings.weight_decay,
            fused=True,
        )
        self.step, self._rng = 0, random.Random(0)
        self.spent = 0.0  # seconds of training, those of earlier runs included
        self._budget = float("inf")
        self._index_of = {int(t): i for i, t in enumerate(drafter.active.tolist())}
        self._queue: list[Span] = []
        folder.mkdir(parents=True, exist_ok=True)
        if self.checkpoint.exists():
            self._load()

    def train_step(self) -> dict[str, Any]:
        """Train on one batch; its step, loss, and acceptance rate by depth."""
        for group in self._optimizer.param_groups:
            group["lr"] = self._rate() * group["scale"]
        batch, candidates, lookup = self._prepare(self._next_spans())
        self._optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16):  # a fifth faster; the weights stay float32
            outcome = rounds_of(self.drafter, batch, self.settings.steps, candidates, lookup)
        outcome.loss.backward()
        torch.nn.utils.clip_grad_norm_(self.drafter.parameters(), 1.0)
        self._optimizer.step()
        self.step += 1
        acceptance = outcome.accepted / outcome.tried.clamp(min=1)
        return {"step": self.step, "loss": float(outcome.loss.detach()), "acceptance": acceptance.tolist()}

    @torch.no_grad()
    def evaluate(self, spans: list[Span]) -> dict[str, Any]:
        """Loss and greedy acceptance rate by depth over whole sequences; every active token is a candidate."""
        steps = self.settings.steps
        accepted, tried, losses = torch.zeros(steps), torch.zeros(steps), []
        everything = torch.arange(len(self.drafter.active))
        for begin in range(0, len(spans), 4):
            batch = self._batches.make(spans[begin : begin + 4])
            outcome = rounds_of(self.drafter, batch, steps, everything, self._lookup(everything))
            accepted, tried = accepted + outcome.accepted, tried + outcome.tried
            losses.append(float(outcome.loss.detach()))
        return {
            "step": self.step,
            "loss": float(np.mean(losses)),
            "acceptance": (accepted / tried.clamp(min=1)).tolist(),
            "rounds": int(tried[0]),
        }

    @property
    def done(self) -> float:
        """The share of the steps or of the time that is used, whichever is larger, from 0 to 1."""
        time_used = self.spent / self._budget if self._budget > 0 else 1.0
        return min(1.0, max(self.step / self.settings.total_steps, time_used))

    @property
    def seconds_left(self) -> float:
        """Training time until the time or the steps are used."""
        by_steps = (self.settings.total_steps - self.step) * self.spent / self.step if self.step else inf
        return max(min(self._budget - self.spent, by_steps), 0.0)

    def run(self, seconds: float, report: Callable[[dict[str, Any]], None] = lambda _: None) -> None:
        """Train until the time, earlier runs included, or the steps are used, or Ctrl-C; save.

        Args:
            seconds: of training.
            report: receives the figures of each step and each evaluation.
        """
        self._budget = seconds
        try:
            self._run(report)
        except KeyboardInterrupt:
            self.save()
            raise

    def _run(self, report: Callable[[dict[str, Any]], None]) -> None:
        evaluated, saved = self.step, time.monotonic()
        while self.done < 1.0:
            started = time.monotonic()
            figures = self.train_step()
            self.spent += time.monotonic() - started
            report(figures)
            if self.step % _EVALUATE_EVERY == 0:
                self._evaluate_held_out(report)
                evaluated, saved = self.step, time.monotonic()
            elif time.monotonic() - saved > _SAVE_SECONDS:
                self.save()
                saved = time.monotonic()
        if self.step > evaluated:
            self._evaluate_held_out(report)

    def _evaluate_held_out(self, report: Callable[[dict[str, Any]], None]) -> None:
        """Evaluate on the held-out sequences, append the figures to the curve, and save."""
        figures = self.evaluate(self.held_out) | {"held_out": True}
        with self._curve.open("a", encoding="utf-8") as curve:
            curve.write(json.dumps(figures) + "\n")
        report(figures)
        self.save()

    def save(self) -> None:
        """Write the checkpoint atomically."""
        state = {
            "drafter": self.drafter.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "step": self.step,
            "spent": self.spent,
            "rng": self._rng.getstate(),
        }
        with replacing(self.checkpoint, locked=True) as partial:
            torch.save(state, partial)

    def _load(self) -> None:
        state = torch.load(self.checkpoint)
        try:
            self.drafter.load_state_dict(state["drafter"])
        except RuntimeError as error:
            raise UsageError(
                f"{self.checkpoint} is of another shape or of less data: remove it to train anew, or use another folder"
            ) from error
        self._optimizer.load_state_dict(state["optimizer"])
        self.step, self.spent = state["step"], state["spent"]
        self._rng.setstate(state["rng"])

    def _rate(self) -> float:
        s = self.settings
        warm = min(1.0, (self.step + 1) / s.warm_up)
        return float(s.rate * warm * (0.1 + 0.45 * (1 + np.cos(np.pi * self.done))))

    def _next_spans(self) -> list[Span]:
        spans: list[Span] = []
        while sum(s.length - s.prompt_length for s in spans) < self.settings.rows:
            if not self._queue:
                self._queue = list(self.training)
                self._rng.shuffle(self._queue)
            spans.append(self._queue.pop())
        return spans

    def _prepare(self, spans: list[Span]) -> tuple[Any, torch.Tensor, torch.Tensor]:
        batch = self._batches.make(spans)
        chosen = self._rng.sample(
            range(len(self.drafter.active)), min(self.settings.negatives, len(self.drafter.active))
        )
        candidates = candidates_of(batch, self._index_of, torch.tensor(chosen))
        return batch, candidates, self._lookup(candidates)

    def _lookup(self, candidates: torch.Tensor) -> torch.Tensor:
        vocabulary = self.drafter.assistant.model.embed_tokens.weight.shape[0]
        lookup = torch.full((vocabulary,), -1, dtype=torch.long)
        lookup[self.drafter.active[candidates]] = torch.arange(len(candidates))
        return lookup
