"""Output of a training run: learning curves, acceptance rate by depth, and the drafter's card."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # there may be no display
from matplotlib import pyplot as plt


def read_curve(folder: Path) -> list[dict[str, Any]]:
    """The held-out figures of a run, in order."""
    path = folder / "curve.jsonl"
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []


def plot_curve(curve: list[dict[str, Any]], path: Path) -> None:
    """Plot held-out loss and acceptance rate by depth over steps, each evaluation as a point."""
    steps = [point["step"] for point in curve]
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    left.plot(steps, [point["loss"] for point in curve], color="black", marker="o")
    left.set(title="Held-out loss", xlabel="step", ylabel="cross-entropy with the target")
    for depth in range(len(curve[0]["acceptance"])):
        right.plot(steps, [point["acceptance"][depth] for point in curve], label=f"depth {depth + 1}", marker="o")
    right.set(title="Held-out acceptance rate, greedy, given all earlier depths", xlabel="step", ylim=(0, 1))
    right.legend(loc="lower right")
    for axes in (left, right):
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def write_card(folder: Path, facts: dict[str, Any]) -> None:
    """Write README.md (target, training data, acceptance rate) and training.json beside the weights."""
    provenance, final, head = facts["provenance"], facts["held_out"], facts["head"]
    clusters = f"{head['scored']} of {head['clusters']} scored, recall {head['recall']:.1%}" if head else "none"
    acceptance = ", ".join(f"{rate:.1%}" for rate in final["acceptance"])
    card = f"""# MTP drafter for {provenance["target"]}

A `gemma4_assistant` drafter, trained by `outrider train-drafter` on the output of this target. It proposes tokens that
the target verifies; it cannot be used alone or with another target.

| | |
| --- | --- |
| target | {provenance["target"]}, sha256 {provenance["sha256"]} |
| data | {facts["tokens"]:,} tokens written by the target, {facts["sequences"]:,} texts |
| prompts | {provenance["prompts"]} |
| training | {final["step"]:,} steps, {facts["steps"]} deep, {facts["trained"]:,} trained weights |
| held-out acceptance rate by depth, greedy, given all earlier depths | {acceptance} |
| clusters | {clusters} |
"""
    (folder / "README.md").write_text(card, "utf-8")
    (folder / "training.json").write_text(json.dumps(facts, indent=1), "utf-8")
