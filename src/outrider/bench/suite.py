"""The prompts that the benchmark decodes: those that ship with it, by category and in two forms, or a file's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.resources import files

from outrider.bench.prompt import Form, Prompt
from outrider.bench.prompt_file import MT_BENCH, MT_BENCH_CATEGORIES, has_mt_bench, read_prompt_file, read_prompt_lines
from outrider.bench.retrieval import retrieval_prompts
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
"""What ships, in the order in which it is shown: free texts first, last those that say again what the prompt says."""

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
"""Those that the figures of the drafters in docs/performance.md are over."""

USUAL_PROMPTS = 4
"""How many of each shipped category are decoded unless more are asked for."""


def shipped_prompts(
    limit: int | None = None,
    *,
    categories: Sequence[str] = DRAFTER_CATEGORIES,
    form: Form = Form.base,
) -> list[Prompt]:
    """Prompts that ship, category by category.

    Args:
        limit: most of each; None for all.
    """
    found: list[Prompt] = []
    for category in categories:
        if category == "retrieval":
            of_category = retrieval_prompts(form)
        else:
            name = f"prompts/{form.value}/{category}.jsonl"
            lines = (files("outrider.bench") / name).read_bytes()
            of_category = read_prompt_lines(lines, name, category)
        found += of_category[:limit]
    return found


def choose_prompts(suite: str, categories: Sequence[str], limit: int | None) -> Callable[[Form], list[Prompt]]:
    """The prompts of `outrider bench decode`, given in a form, which only a loaded model can choose.

    Args:
        suite: "shipped", or the path of a file of the user's own (see `prompt_file.read_prompt_file`).
        categories: those wanted; none for all.
        limit: most of each category; None for the usual number of what ships, and for all of a file.

    Raises:
        UsageError: the file cannot be used, or there is no such category; the message names those there are.
    """
    if suite == "shipped":
        _check_categories(categories, CATEGORIES, "the shipped suite")
        wanted = [category for category in CATEGORIES if not categories or category in categories]
        most = USUAL_PROMPTS if limit is None else limit
        return lambda form: shipped_prompts(most, categories=wanted, form=form)
    by_category: dict[str, list[Prompt]] = {}
    for prompt in read_prompt_file(suite):
        by_category.setdefault(prompt.category, []).append(prompt)
    _check_categories(categories, [*by_category, *([MT_BENCH] if has_mt_bench(by_category) else [])], suite)
    together = MT_BENCH in categories and has_mt_bench(by_category)
    chosen = {*categories, *(MT_BENCH_CATEGORIES if together else ())}
    found = [
        prompt
        for category, of_category in by_category.items()
        if not categories or category in chosen
        for prompt in of_category[:limit]
    ]
    return lambda form: [prompt.in_form(form) for prompt in found]


def _check_categories(wanted: Sequence[str], there: Sequence[str], where: str) -> None:
    for category in wanted:
        if category not in there:
            raise UsageError(f"{where} has no category {category!r}; it has {', '.join(there)}")
