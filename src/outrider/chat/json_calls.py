"""Calls for models without control tokens for them, in the format published for Gemma 3: one JSON object a call.

See https://ai.google.dev/gemma/docs/capabilities/function-calling.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from outrider.chat.calls import Call
from outrider.sampling.grammar import Grammar

_LABEL = re.compile(r"\A[a-z_]*\s")
_BEGUN = re.compile(r"\s*(?:```[a-z_]*\s+)?[\[{]")
_BEGINNING = re.compile(r"\s*(?:`{0,2}|```[a-z_]{0,12}\s*)")
_DATA = ("enum", "const", "default", "examples")
"""Keywords of a schema whose values are no schemas."""
_NAMED = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
"""Those whose values are schemas by name."""
_INTRODUCTION = """\
You can call functions. To call one, answer with a JSON object and no other text:
{"name": function name, "parameters": dictionary of argument name and its value}
The functions:
"""


def described(tools: Sequence[Mapping[str, Any]]) -> str:
    """The functions, for the system message."""
    functions = [tool.get("function", tool) for tool in tools]
    return _INTRODUCTION + json.dumps(functions, ensure_ascii=False, default=str)


def written(calls: Sequence[Mapping[str, Any]]) -> str:
    """Calls as the model writes them.

    Args:
        calls: objects with `name` and `arguments`, an object.
    """
    each = [{"name": call["name"], "parameters": call["arguments"]} for call in calls]
    return json.dumps(each[0] if len(each) == 1 else each, ensure_ascii=False, default=str)


def result(name: str, content: str) -> str:
    """What a call gave, for the user's turn."""
    return f"{name or 'The function'} returned:\n```tool_output\n{content}\n```"


def may_be_calls(text: str) -> bool:
    """Whether an answer that begins so may consist of calls."""
    return _BEGUN.match(text) is not None or _BEGINNING.fullmatch(text) is not None


def read_calls(text: str, names: Collection[str]) -> list[Call]:
    """The calls that an answer consists of; none if it is anything else.

    Args:
        names: of the functions that there are.
    """
    bare = text.strip()
    if bare.startswith("```") and bare.endswith("```"):
        bare = _LABEL.sub("", bare[3:-3])
    try:
        found = json.loads(bare)
    except (ValueError, RecursionError):
        return []
    calls = [_call(one, names) for one in (found if isinstance(found, list) else [found])]
    read = [call for call in calls if call is not None]
    return read if len(read) == len(calls) else []


def grammar_of_calls(functions: Sequence[tuple[str, Mapping[str, Any] | None]], form: Grammar | None) -> Grammar | None:
    """The grammar of an answer that is a call; with a form, of one that is a call or of that form.

    Args:
        functions: names, and JSON schemas of the arguments.

    Returns:
        None if the form cannot be joined: it is no JSON schema.
    """
    options: list[Any] = []
    for name, schema in functions:
        at = f"#/anyOf/{len(options)}/properties/parameters"
        options.append(
            {
                "type": "object",
                "properties": {"name": {"const": name}, "parameters": _placed(schema or {"type": "object"}, at)},
                "required": ["name", "parameters"],
                "additionalProperties": False,
            }
        )
    if form is not None:
        if form.kind != "json_schema":
            return None
        options.append(_placed(json.loads(form.text), f"#/anyOf/{len(options)}"))
    return Grammar.json_schema({"anyOf": options})


def _placed(schema: Any, at: str) -> Any:
    """A schema as a part of another: its references, which count from its root, count from there."""
    placed = json.loads(Grammar.json_schema(schema).text)  # a copy, whose size is checked
    parts = [(placed, False)]
    while parts:
        part, named = parts.pop()
        if isinstance(part, list):
            parts += [(each, False) for each in part]
        elif isinstance(part, dict):
            reference = part.get("$ref")
            if isinstance(reference, str) and reference.startswith("#"):
                part["$ref"] = at + reference[1:]
            parts += [(each, not named and name in _NAMED) for name, each in part.items() if named or name not in _DATA]
    return placed


def _call(found: Any, names: Collection[str]) -> Call | None:
    if not isinstance(found, dict) or not isinstance(found.get("name"), str) or found["name"] not in names:
        return None
    arguments = found.get("parameters", found.get("arguments", {}))
    return Call(found["name"], json.dumps(arguments, ensure_ascii=False)) if isinstance(arguments, dict) else None
