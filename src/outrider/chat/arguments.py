"""The arguments of a tool call in a history, as far as they can be read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from outrider.chat.calls import MAX_DEPTH

WHOLE = "value"
"""The argument that holds what is no object."""


def read_arguments(given: Any) -> tuple[dict[str, Any], str | None]:
    """An object of arguments, and what was wrong with those given, if anything.

    Args:
        given: a text with a JSON object, as OpenAI's API has it, an object, or whatever else a client sent. Of a text
            that is cut off, what is complete is read.
    """
    found, problem = given, None
    if isinstance(given, str):
        try:
            found = json.loads(given) if given.strip() else {}
        except (ValueError, RecursionError):
            found, problem = _complete(given), "are not JSON; they were read as far as possible"
    if found is None:
        return {}, problem
    if isinstance(found, Mapping) and _depth(found) <= MAX_DEPTH:
        return dict(found), problem
    shown = given if isinstance(given, str) and (problem or isinstance(found, Mapping | list)) else found
    shown = shown if _depth(shown) <= MAX_DEPTH else json.dumps(shown, ensure_ascii=False, default=str)
    return {WHOLE: shown}, problem or f'are no JSON object; they are shown as "{WHOLE}"'


def _complete(text: str) -> Any:
    """The object in a JSON text that was cut off, or goes on behind it, without what is incomplete; else the text."""
    closing, last = _open(text)
    for candidate in (text, text + closing, text[:last] + _open(text[:last])[0]):
        try:
            found, _ = json.JSONDecoder().raw_decode(candidate.lstrip())
        except (ValueError, RecursionError):
            continue
        if found and isinstance(found, dict):
            return found
    return text


def _open(text: str) -> tuple[str, int]:
    """What closes the strings, arrays and objects that are open at a text's end, and the length of its part that ends
    before the last comma or after the last opening bracket."""
    closing: list[str] = []
    string = escaped = False
    last = 0
    for at, char in enumerate(text):
        if string:
            string, escaped = escaped or char != '"', not escaped and char == "\\"
        elif char == '"':
            string = True
        elif char in "{[":
            closing.append("}" if char == "{" else "]")
            last = at + 1
        elif char in "}]" and closing:
            closing.pop()
        elif char == ",":
            last = at
    return '"' * string + "".join(reversed(closing)), last


def _depth(value: Any) -> int:
    """Levels of objects and arrays, counted up to just beyond MAX_DEPTH."""
    level, depth = [value], 0
    while depth <= MAX_DEPTH:
        inner = [it.values() if isinstance(it, Mapping) else it for it in level if isinstance(it, Mapping | list)]
        if not inner:
            break
        level, depth = [one for values in inner for one in values], depth + 1
    return depth
