"""What a line of prompts requires of the answer: a grammar, tools, a prediction, stop texts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from outrider.bench.prompt import Tools
from outrider.chat.turn import TurnRequest
from outrider.errors import UsageError
from outrider.sampling.grammar import Grammar

FIELDS = ("grammar", "tools", "tool_choice", "prediction", "stop")
_CHOICES = ("auto", "none", "required")


def read_fields(line: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `Prompt` that a line's fields give.

    Raises:
        UsageError: a field is malformed; the message names it and what is expected.
    """
    if "tool_choice" in line and "tools" not in line:
        raise UsageError('"tool_choice": expected with "tools", the functions that it chooses from')
    readers = {"grammar": _grammar, "prediction": _prediction, "stop": _stop}
    read: dict[str, Any] = {name: reader(line[name]) for name, reader in readers.items() if name in line}
    if "tools" in line:
        read["tools"] = _tools(line["tools"], line.get("tool_choice", "auto"))
    return read


def _grammar(given: Any) -> Grammar:
    try:
        match list(given.items()) if isinstance(given, dict) else ():
            case [("json_schema", dict() | bool() as schema)]:
                return Grammar.json_schema(schema)
            case [("regex" | "lark" as kind, str() as text)]:
                return Grammar(kind, text)
    except UsageError as error:
        raise UsageError(f'"grammar": {error}') from error
    raise UsageError(
        '"grammar": expected an object with one of "json_schema" (a schema), "regex" (a text) or "lark" (a text)'
    )


def _tools(given: Any, choice: Any) -> Tools:
    if not isinstance(given, list) or not given:
        raise UsageError('"tools": expected a list of functions as in OpenAI\'s API, which is not empty')
    try:
        names = [tool["function"]["name"] for tool in TurnRequest((), given).tools]
    except UsageError as error:
        raise UsageError(f'"tools": {error}') from error
    text = json.dumps(given, ensure_ascii=False)
    if choice in _CHOICES:
        return Tools(text, choice)
    function = choice.get("function") if isinstance(choice, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    if name not in names:
        raise UsageError(
            f'"tool_choice": expected one of {", ".join(_CHOICES)}, or {{"type": "function", "function": {{"name": '
            f"...}}}} with the name of one of the tools ({', '.join(names)})"
        )
    return Tools(text, function=name)


def _prediction(given: Any) -> str:
    if not isinstance(given, str) or not given:
        raise UsageError('"prediction": expected a text that is not empty')
    return given


def _stop(given: Any) -> tuple[str, ...]:
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) and text for text in texts):
        raise UsageError('"stop": expected a text or a list of texts, none of them empty')
    return tuple(texts)
