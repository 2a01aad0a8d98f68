"""The texts in the folder prompts/."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any


def shipped_text(name: str) -> str:
    """The text of a file in prompts/, without empty lines around it."""
    return (files("outrider.bench") / "prompts" / name).read_text("utf-8").strip()


def shipped_lines(name: str) -> list[dict[str, Any]]:
    """The objects of a file of JSON lines in prompts/."""
    return [json.loads(line) for line in shipped_text(name).split("\n")]
