"""Reading prompts from JSON lines: the files that ship, a user's own, and Spec-Bench's questions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from outrider.bench.prompt import Message, Prompt
from outrider.bench.prompt_fields import FIELDS, read_fields
from outrider.errors import UsageError

MAX_BYTES = 32 << 20
"""Of a file. Spec-Bench's 480 questions take about 1 MB."""

OWN = "own"
"""The category of a line without one."""

LONGEST_CATEGORY = 40
"""Characters of a category's name: it has to fit into tables."""

_OBJECT = 'expected an object with one of "prompt", "messages" or "turns"'
_EXPECTED = {
    "prompt": "a text that is not empty",
    "turns": "a list of texts that are not empty",
    "messages": 'a list of objects with "role" and "content" (a text that is not empty), "user" and "assistant" in '
    'turns, "user" first and last, after at most one "system"',
}


def read_prompt_file(path: str | Path) -> list[Prompt]:
    """The prompts of a file of JSON lines; empty lines are skipped.

    A line is an object with one of:

    - `prompt`: a text. A base model continues it, a chat model gets it as a user's message.
    - `messages`: objects with `role` and `content`. A system message may come first; then user and assistant take
      turns, and the last one is the user's.
    - `turns`: a user's messages, turn by turn, as in Spec-Bench's and MT-Bench's question.jsonl. As Spec-Bench's own
      evaluation does, a chat model gets every turn, after its own answers to those before; each turn is measured as a
      prompt of its own. A base model gets the first only. (Others, vLLM among them, use the first turn only: compare
      with care.) Answers there have up to 1024 tokens; here `--max-tokens` sets the limit.

    and optionally `category`, a name under which its figures are shown, and, except with `turns`:

    - `grammar`: an object with one of `json_schema`, `regex` and `lark`, which holds the answer.
    - `tools` and `tool_choice`: as in OpenAI's API. A base model reads of them in the text, and calls them in JSON.
    - `prediction`: a text that the answer will mostly repeat.
    - `stop`: a text that ends the answer, or a list of such.

    Other keys, such as Spec-Bench's `question_id`, are ignored.

    Raises:
        UsageError: the file cannot be read, is larger than 32 MiB, holds no prompts, or has a line that is no such
            object; the message names file and line and what is expected.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UsageError(f'cannot read prompts from {path}: {reason}. --suite takes "shipped" or a file') from error
    if len(data) > MAX_BYTES:
        raise UsageError(f"{path} has more than the {MAX_BYTES >> 20} MiB that a suite can have: take a part of it")
    prompts = read_prompt_lines(data, str(path), OWN)
    if not prompts:
        raise UsageError(f"{path} holds no prompts: {_OBJECT} on each line")
    return prompts


def read_prompt_lines(data: bytes, name: str, category: str) -> list[Prompt]:
    """The prompts of a file's bytes.

    Args:
        name: the file's, for errors.
        category: of lines that name none.

    Raises:
        UsageError: a line is not as `read_prompt_file` requires.
    """
    lines = enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1)
    return [_prompt(line, f"{name}, line {number}", category) for number, line in lines if line.strip()]


def _prompt(line: bytes, where: str, category: str) -> Prompt:
    try:
        found = json.loads(line.decode())
        json.dumps(found, ensure_ascii=False).encode()  # fails if a text has half of a surrogate pair
    except (ValueError, RecursionError) as error:
        problem = f"{error.msg}, column {error.colno}" if isinstance(error, json.JSONDecodeError) else str(error)
        raise UsageError(f"{where} is not JSON in UTF-8 ({problem}): {_OBJECT}") from error
    kinds = [kind for kind in _EXPECTED if isinstance(found, dict) and kind in found]
    if len(kinds) != 1:
        raise UsageError(f"{where}: {_OBJECT}, found {' and '.join(kinds) or 'none of them'}")
    category = found.get("category", category)
    if not (_is_text(category) and category.isprintable() and len(category) <= LONGEST_CATEGORY):
        raise UsageError(
            f'{where}: "category": expected a name, on one line and of at most {LONGEST_CATEGORY} characters'
        )
    fields = _fields(found, where)
    match found:
        case {"prompt": text} if _is_text(text):
            return Prompt(category, text, **fields)
        case {"turns": [first, *further]} if all(map(_is_text, (first, *further))):
            return Prompt(category, messages=(Message("user", first),), further=tuple(further))
        case {"messages": [*messages]} if conversation := _conversation(messages):
            return Prompt(category, messages=conversation, **fields)
    raise UsageError(f'{where}: "{kinds[0]}": expected {_EXPECTED[kinds[0]]}')


def _fields(line: dict[str, Any], where: str) -> dict[str, Any]:
    named = [name for name in FIELDS if name in line]
    if named and "turns" in line:
        raise UsageError(f'{where}: "{named[0]}": expected with "prompt" or "messages", not with "turns"')
    try:
        return read_fields(line)
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from error


def _conversation(found: list[Any]) -> tuple[Message, ...]:
    """The messages, if every template of the Gemma models takes their order; else none."""
    messages = [Message(of.get("role", ""), of.get("content", "")) for of in found if isinstance(of, dict)]
    roles = [message.role for message in messages]
    spoken = roles[1:] if roles[:1] == ["system"] else roles
    in_turns = len(spoken) % 2 == 1 and spoken == [("user", "assistant")[i % 2] for i in range(len(spoken))]
    complete = len(messages) == len(found) and all(_is_text(message.content) for message in messages)
    return tuple(messages) if in_turns and complete else ()


def _is_text(found: Any) -> bool:
    return isinstance(found, str) and bool(found.strip())
