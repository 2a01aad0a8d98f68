"""The shipped prompts of agents and editors: with tools, a grammar, or a file to rewrite as the prediction."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from outrider.bench.prompt import Prompt, PromptFormat
from outrider.bench.prompt_fields import read_fields
from outrider.bench.shipped_text import shipped_lines, shipped_text

AGENT_CATEGORIES = ("tool-calls", "schemas", "rewrites")
"""What agents and editors send. Decoded when named, because the answers are longer than those of other categories."""

_END = "===== end"


def agent_prompts(category: str, prompt_format: PromptFormat) -> list[Prompt]:
    """The prompts of one of the categories."""
    read = _rewrite if category == "rewrites" else _held
    return [read(category, line, prompt_format) for line in shipped_lines(f"{category}.jsonl")]


def _held(category: str, line: Mapping[str, Any], prompt_format: PromptFormat) -> Prompt:
    """An answer that a grammar or a demanded call holds. `tools` names a file in prompts/tools."""
    tools = {"tools": json.loads(shipped_text(f"tools/{line['tools']}.json"))} if "tools" in line else {}
    return Prompt(category, line[prompt_format.value], **read_fields({**line, **tools})).in_format(prompt_format)


def _rewrite(category: str, line: Mapping[str, Any], prompt_format: PromptFormat) -> Prompt:
    """A file to write out again with a small change; the file is the prediction.

    A base model reads two equal copies, since a small one does not go on copying after one, and the first lines of the
    new file.
    """
    name, before = line["file"], shipped_text(f"files/{line['file']}.txt") + "\n"
    if prompt_format is PromptFormat.chat:
        text = f"{line['chat']} Answer with the whole new file and nothing else.\n\n{name}:\n\n{before}"
        return Prompt(category, text, prediction=before).in_format(prompt_format)
    copies = "".join(f"===== {name}, {where} =====\n{before}{_END} =====\n\n" for where in ("on the server", "at home"))
    begun = "".join(rewritten(line).splitlines(keepends=True)[: line["begun"]])
    return Prompt(category, f"{copies}===== {name}, {line['base']} =====\n{begun}", prediction=before, stop=(_END,))


def rewritten(line: Mapping[str, Any]) -> str:
    """The file of a line of rewrites.jsonl with the change that its texts ask for."""
    text = shipped_text(f"files/{line['file']}.txt") + "\n"
    for old, new in line["edits"]:
        text = text.replace(old, new)
    return text
