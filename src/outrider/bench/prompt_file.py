"""Reading prompts from JSON lines: the files that ship, a user's own, and Spec-Bench's questions."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any, NoReturn

from outrider.bench.prompt import Message, Prompt
from outrider.errors import UsageError

MAX_BYTES = 32 << 20
"""Of a file. Spec-Bench's 480 questions take about 1 MB."""

OWN = "own"
"""The category of a line without one."""

LONGEST_CATEGORY = 40
"""Characters of a category's name: it has to fit into tables and beside bars."""

MT_BENCH = "mt_bench"
MT_BENCH_CATEGORIES = ("writing", "roleplay", "reasoning", "math", "coding", "extraction", "stem", "humanities")
"""What Spec-Bench has from MT-Bench, and reports together under that name."""

_KINDS = ("prompt", "messages", "turns")
_EXPECTED = (
    'expected an object with one of "prompt" (a text), "messages" (a list of messages) or "turns" (a list of texts)'
)


def read_prompt_file(path: str | Path) -> list[Prompt]:
    """The prompts of a file of JSON lines; empty lines are passed over.

    A line is an object with one of:

    - `prompt`: a text. A base model continues it, a chat model gets it as a user's message.
    - `messages`: objects with `role` and `content`. A system message may come first; then user and assistant take
      turns, and the last one is the user's.
    - `turns`: a user's messages, turn by turn, as in Spec-Bench's and MT-Bench's question.jsonl. As Spec-Bench's own
      evaluation does, a chat model gets every turn, after its own answers to those before; each turn is measured as a
      prompt of its own. A base model gets the first only. (Others, vLLM among them, ask the first turn only: compare
      with care.) Answers there have up to 1024 tokens; here `--max-tokens` says how many.

    and optionally `category`, a name under which its figures are shown. Other keys, such as Spec-Bench's
    `question_id`, are ignored.

    Raises:
        UsageError: the file cannot be read, is larger than 32 MiB, holds no prompts, or has a line that is no such
            object; the message names file and line and says what is expected.
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
        raise UsageError(f"{path} holds no prompts: {_EXPECTED} on each line")
    return prompts


def has_mt_bench(categories: Collection[str]) -> bool:
    """Whether all of MT-Bench's are there; one of them alone may be called so by chance."""
    return all(category in categories for category in MT_BENCH_CATEGORIES)


def read_prompt_lines(data: bytes, name: str, category: str) -> list[Prompt]:
    """The prompts of a file's bytes.

    Args:
        name: the file's, for errors.
        category: of lines that name none.

    Raises:
        UsageError: a line is not as `read_prompt_file` requires.
    """
    lines = data.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    return [_Line(name, number).read(line, category) for number, line in enumerate(lines, 1) if line.strip()]


class _Line:
    """One line, and its position in the file."""

    def __init__(self, name: str, number: int) -> None:
        self.where = f"{name}, line {number}"

    def read(self, line: bytes, category: str) -> Prompt:
        try:
            found = json.loads(line.decode())
        except UnicodeDecodeError:
            self.refuse("is not UTF-8: convert the file with iconv")
        except (ValueError, RecursionError) as error:
            self.refuse(f"is not JSON ({error}): {_EXPECTED}")
        if not isinstance(found, dict):
            self.refuse(_EXPECTED)
        kinds = [kind for kind in _KINDS if kind in found]
        if len(kinds) != 1:
            self.refuse(f"{_EXPECTED}, found {' and '.join(kinds) if kinds else 'none of them'}")
        category = self.category(found["category"]) if "category" in found else category
        if kinds == ["prompt"]:
            return Prompt(category, self.text(found["prompt"], '"prompt"'))
        if kinds == ["messages"]:
            return Prompt(category, messages=self.messages(found["messages"]))
        turns = [self.text(turn, f'"turns", turn {i}') for i, turn in enumerate(self.list(found["turns"], "turns"), 1)]
        return Prompt(category, messages=(Message("user", turns[0]),), further=tuple(turns[1:]))

    def category(self, found: Any) -> str:
        if not isinstance(found, str) or not found.strip() or not found.isprintable() or len(found) > LONGEST_CATEGORY:
            self.refuse(f'"category": expected a name, on one line and of at most {LONGEST_CATEGORY} characters')
        return found

    def messages(self, found: Any) -> tuple[Message, ...]:
        messages = []
        for number, message in enumerate(self.list(found, "messages"), 1):
            what = f'"messages", message {number}'
            if not isinstance(message, dict) or not {"role", "content"} <= message.keys():
                self.refuse(f'{what}: expected an object with "role" and "content"')
            messages.append(Message(self.text(message["role"], f"{what}, role"), self.text(message["content"], what)))
        roles = [message.role for message in messages]
        spoken = roles[1:] if roles[0] == "system" else roles
        # What every template of the Gemma models takes; others would fail in the middle of a run.
        if len(spoken) % 2 == 0 or spoken != [("user", "assistant")[i % 2] for i in range(len(spoken))]:
            self.refuse(
                '"messages": expected the roles "user" and "assistant" in turns, "user" first and last, after at most '
                f'one "system"; found {", ".join(roles)}'
            )
        return tuple(messages)

    def list(self, found: Any, key: str) -> list[Any]:
        if not isinstance(found, list) or not found:
            self.refuse(f'"{key}": expected a list of at least one')
        return found

    def text(self, found: Any, what: str) -> str:
        if not isinstance(found, str) or not found.strip():
            self.refuse(f"{what}: expected a text that is not empty")
        try:
            found.encode()
        except UnicodeEncodeError:
            self.refuse(f"{what}: expected text that UTF-8 can hold, found half of a surrogate pair")
        return found

    def refuse(self, problem: str) -> NoReturn:
        raise UsageError(f"{self.where}: {problem}")
