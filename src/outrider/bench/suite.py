"""The prompts that ship with the benchmark: texts for a base model to go on from, by category."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.resources import files

CATEGORIES = ("prose", "explanation", "question-answer", "translation", "list", "code", "mathematics", "copy-edit")
"""From the text that is hardest to guess to the one that is easiest."""


@dataclass(frozen=True)
class Prompt:
    """One text to go on from."""

    category: str
    text: str


def shipped_prompts(limit: int | None = None) -> list[Prompt]:
    """All prompts, category by category; at most `limit` of each."""
    folder = files("outrider.bench") / "prompts"
    found = []
    for category in CATEGORIES:
        lines = (folder / f"{category}.jsonl").read_text("utf-8").splitlines()
        found += [Prompt(category, json.loads(line)["prompt"]) for line in lines[:limit]]
    return found
