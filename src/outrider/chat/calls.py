"""Parses Gemma 4's tool calls into OpenAI's.

A call is `call:NAME{key:value,...}` between the control tokens `<|tool_call>` and `<tool_call|>`. Strings are delimited
by `<|"|>` and have no escapes; keys are bare; numbers, `true`, `false` and `null` are as in JSON; `{...}` and `[...]`
nest. See https://ai.google.dev/gemma/docs/core/prompt-formatting-gemma4 and the macro `format_argument` of the
models' chat template.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

QUOTE = '<|"|>'
MAX_DEPTH = 64
"""Deepest nesting of arguments that is read."""

NAME = re.compile(r"[\w.\-]+")
"""Of a function."""
_HEAD = re.compile(rf"\s*call:\s*({NAME.pattern})\s*(?=\{{)")
_SPACE = re.compile(r"\s*")
_BARE = re.compile(r"[^,{}\[\]]*")
_KEY = re.compile(r"[^:,{}\[\]]+(?=:)")
_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?", re.ASCII)
_WORDS: dict[str, Any] = {"true": True, "false": False, "null": None, "None": None}  # the template writes null as None


@dataclass(frozen=True)
class Call:
    """A tool call: the function's name, and a JSON object of arguments as text."""

    name: str
    arguments: str


def parse_call(text: str) -> Call | None:
    """The call in a text from between the control tokens; None if it is malformed."""
    head = _HEAD.match(text)
    if head is None:
        return None
    reader = _Reader(text, head.end())
    try:
        arguments = reader.value(0)
    except _MalformedError:
        return None
    if not isinstance(arguments, dict) or _SPACE.sub("", text[reader.at :]):
        return None
    return Call(head[1], json.dumps(arguments, ensure_ascii=False))


class _MalformedError(Exception):
    """The text is not a call."""


class _Reader:
    """A recursive-descent parser; `at` is the index of the next character."""

    def __init__(self, text: str, at: int) -> None:
        self._text, self.at = text, at

    def value(self, depth: int) -> Any:
        """The next value; skips the space around it."""
        if depth > MAX_DEPTH:
            raise _MalformedError
        self._skip(_SPACE)
        if self._takes("{"):
            found: Any = self._object(depth)
        elif self._takes("["):
            found = self._array(depth)
        elif self._takes(QUOTE):
            found = self._quoted()
        else:
            found = _bare(self._skip(_BARE).strip())
        self._skip(_SPACE)
        return found

    def _object(self, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        self._skip(_SPACE)
        while not self._takes("}"):
            if found and not self._takes(","):
                raise _MalformedError
            self._skip(_SPACE)
            quoted = self._takes(QUOTE)
            key = self._quoted() if quoted else self._skip(_KEY).strip()
            self._skip(_SPACE)
            if not (key or quoted) or not self._takes(":"):
                raise _MalformedError
            found[key] = self.value(depth + 1)
        return found

    def _array(self, depth: int) -> list[Any]:
        found: list[Any] = []
        self._skip(_SPACE)
        while not self._takes("]"):
            if found and not self._takes(","):
                raise _MalformedError
            found.append(self.value(depth + 1))
        return found

    def _quoted(self) -> str:
        end = self._text.find(QUOTE, self.at)
        if end < 0:
            raise _MalformedError
        found, self.at = self._text[self.at : end], end + len(QUOTE)
        return found

    def _takes(self, token: str) -> bool:
        if not self._text.startswith(token, self.at):
            return False
        self.at += len(token)
        return True

    def _skip(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self._text, self.at)
        if match is None:
            return ""
        self.at = match.end()
        return match[0]


def _bare(text: str) -> Any:
    """A value without delimiters: a number, a JSON constant, or a string whose delimiters the model left out."""
    if text in _WORDS:
        return _WORDS[text]
    if _NUMBER.fullmatch(text) and len(text) < 400:
        number = json.loads(text)
        return text if number in (float("inf"), -float("inf")) else number
    if not text or QUOTE in text:
        raise _MalformedError
    return text
