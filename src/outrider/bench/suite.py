"""The prompts of `outrider bench decode`: those that ship, by category and in two formats, or a file's."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from outrider.bench.agent_prompts import AGENT_CATEGORIES, agent_prompts
from outrider.bench.prompt import Message, Prompt, PromptFormat
from outrider.bench.prompt_file import read_prompt_file, read_prompt_lines
from outrider.bench.shipped_text import shipped_lines, shipped_text
from outrider.errors import UsageError

CATEGORIES = (
    "prose",
    "conversation",
    "explanation",
    "summary",
    "question-answer",
    "translation",
    "list",
    "code",
    "mathematics",
    "extraction",
    "retrieval",
    "code-edit",
    "copy-edit",
)
"""Those decoded by default, in the order of the tables: free text first, at the end what repeats its prompt."""

DRAFTER_CATEGORIES = (
    "prose",
    "explanation",
    "question-answer",
    "translation",
    "list",
    "code",
    "mathematics",
    "copy-edit",
)
"""Those of the drafters' figures in docs/lab, and the prompts of `bench endpoint`."""

USUAL_PROMPTS = 4
"""Prompts of each shipped category, unless more are requested."""


def shipped_prompts(
    limit: int | None = None,
    *,
    categories: Sequence[str] = DRAFTER_CATEGORIES,
    prompt_format: PromptFormat = PromptFormat.base,
) -> list[Prompt]:
    """Prompts that ship, category by category.

    Args:
        limit: most of each; None for all.
    """
    found: list[Prompt] = []
    for category in categories:
        if category == "retrieval":
            of_category = retrieval_prompts(prompt_format)
        elif category in AGENT_CATEGORIES:
            of_category = agent_prompts(category, prompt_format)
        else:
            name = f"{prompt_format.value}/{category}.jsonl"
            of_category = read_prompt_lines(shipped_text(name).encode(), name, category)
        found += of_category[:limit]
    return found


def choose_prompts(suite: str, categories: Sequence[str], limit: int | None) -> Callable[[PromptFormat], list[Prompt]]:
    """A function from the prompt format, which depends on the loaded model, to the prompts.

    Args:
        suite: "shipped", or the path of the user's own file (see `prompt_file.read_prompt_file`).
        categories: none for all of a file, and for `CATEGORIES` of what ships.
        limit: most of each category; None for the usual number of what ships, and for all of a file.

    Raises:
        UsageError: the file cannot be used, or there is no such category; the message names those there are.
    """
    if suite == "shipped":
        there = (*CATEGORIES, *AGENT_CATEGORIES)
        _check_categories(categories, there, "the shipped suite")
        wanted = [category for category in there if category in (categories or CATEGORIES)]
        most = USUAL_PROMPTS if limit is None else limit
        return lambda prompt_format: shipped_prompts(most, categories=wanted, prompt_format=prompt_format)
    by_category: dict[str, list[Prompt]] = {}
    for prompt in read_prompt_file(suite):
        by_category.setdefault(prompt.category, []).append(prompt)
    _check_categories(categories, list(by_category), suite)
    found = [p for name, own in by_category.items() if not categories or name in categories for p in own[:limit]]
    return lambda prompt_format: [prompt.in_format(prompt_format) for prompt in found]


def _check_categories(wanted: Sequence[str], there: Sequence[str], where: str) -> None:
    for category in wanted:
        if category not in there:
            raise UsageError(f"{where} has no category {category!r}; it has {', '.join(there)}")


def retrieval_prompts(prompt_format: PromptFormat) -> list[Prompt]:
    """Documents of some 3,400 tokens, one passage of each with the answer; the same on every machine and in every run.

    A document is a collection of independent sections (a museum's catalogue, a handbook). Each prompt has an order of
    its own, with the passage at its own depth, so no two prompts share a prefix worth caching.
    """
    prompts = []
    for number, line in enumerate(questions()):
        text = compose(line["document"], line["passage"], line["depth"], number)
        if prompt_format is PromptFormat.base:
            prompts.append(Prompt("retrieval", f"{text}\n\n{line['base']}"))
        else:
            prompts.append(Prompt("retrieval", messages=(Message("user", f"{text}\n\n---\n\n{line['chat']}"),)))
    return prompts


def compose(document: str, passage: str, depth: float, seed: int) -> str:
    """A document in a shuffled order, the passage between its sections.

    Args:
        document: its name in prompts/documents: a title, then sections, with an empty line between two.
        depth: of the passage, from 0 (before the first section) to 1 (after the last).
        seed: of the order.
    """
    title, *parts = sections(document)
    rng = random.Random(seed)
    ordered = sorted(
        parts, key=lambda _: rng.random()
    )  # shuffle() differs between versions of Python, random() does not
    ordered.insert(round(depth * len(ordered)), passage)
    return "\n\n".join([title, *ordered])


@cache
def sections(document: str) -> tuple[str, ...]:
    """A document's title, then its sections, in the order of the file."""
    return tuple(shipped_text(f"documents/{document}.txt").split("\n\n"))


def questions() -> list[dict[str, Any]]:
    """Objects with `document`, `passage` (the answer), `depth`, and the question as `base` and as `chat`."""
    return shipped_lines("retrieval.jsonl")
