"""Long-context retrieval: a document of some 3,400 tokens, one passage of which holds what is asked for.

The documents are collections whose sections stand for themselves: a museum's catalogue, a handbook. So their order
says nothing, and each prompt has its own order, with its own passage at its own depth; what two of them begin with in
common is too short for a cache of prompts to matter.
"""

from __future__ import annotations

import json
import random
from functools import cache
from importlib.resources import files
from typing import Any

from outrider.bench.prompt import Form, Message, Prompt


def retrieval_prompts(form: Form) -> list[Prompt]:
    """Every shipped question, with its document around it. The same on every machine and in every run."""
    return [_prompt(line, number, form) for number, line in enumerate(questions())]


def compose(document: str, passage: str, depth: float, seed: int) -> str:
    """A document in an order of its own, the passage put between its sections.

    Args:
        document: its name in prompts/documents: a title, then sections, with an empty line between two.
        depth: where the passage stands, from 0 (before the first section) to 1 (after the last).
        seed: of the order.
    """
    title, *parts = sections(document)
    # Only Random.random is promised to stay the same from one version of Python to the next.
    rng = random.Random(seed)
    keys = [rng.random() for _ in parts]
    ordered = [part for _, part in sorted(zip(keys, parts, strict=True))]
    ordered.insert(round(depth * len(ordered)), passage)
    return "\n\n".join([title, *ordered])


def _prompt(line: dict[str, Any], number: int, form: Form) -> Prompt:
    text = compose(line["document"], line["passage"], line["depth"], number)
    if form is Form.base:
        return Prompt("retrieval", f"{text}\n\n{line['base']}")
    return Prompt("retrieval", messages=(Message("user", f"{text}\n\n---\n\n{line['chat']}"),))


@cache
def sections(document: str) -> tuple[str, ...]:
    """A document's title, then its sections, in the order of the file."""
    text = (files("outrider.bench") / "prompts" / "documents" / f"{document}.txt").read_text("utf-8")
    return tuple(text.strip().split("\n\n"))


def questions() -> list[dict[str, Any]]:
    """What is asked: `document`, the `passage` that answers, its `depth`, and the question as `base` and as `chat`."""
    text = (files("outrider.bench") / "prompts" / "retrieval.jsonl").read_text("utf-8")
    return [json.loads(line) for line in text.strip().split("\n")]
