"""Lark grammars of tool calls in Gemma 4's format."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from outrider.chat.calls import QUOTE
from outrider.chat.reader import CALL, CALL_END
from outrider.errors import UsageError
from outrider.sampling.constraint import lark_body
from outrider.sampling.grammar import Grammar
from outrider.tokenizer import Tokenizer

_MAX_DEPTH = 32
# The number of digits is bounded: every number is a finite float, and no number is endless. A string is read up to the
# text of the control token that ends it, so it cannot hold that text.
_VALUES = r"""
any: text | number | "true" | "false" | "null" | anyobject | anyarray
anyobject: "{" (anypair ("," anypair)*)? "}"
anypair: KEY ":" any
anyarray: "[" (any ("," any)*)? "]"
number: /-?(0|[1-9][0-9]{0,19})(\.[0-9]{1,20})?([eE][+-]?[01]?[0-9]{1,2})?/
integer: /-?(0|[1-9][0-9]{0,19})/
KEY: /[A-Za-z_][A-Za-z0-9_\-]*/
TEXT: /(.|\n)*/ & ~/(.|\n)*(<\|"\|>|<tool_call\|>)(.|\n)*/
"""
_BARE_KEY = re.compile(r"[^\s:,{}\[\]<]([^:,{}\[\]<]*[^\s:,{}\[\]<])?")


@dataclass(frozen=True)
class Function:
    """A function that the model may call: its name, and the JSON schema of its arguments, or None."""

    name: str
    parameters: Mapping[str, Any] | None = None


def grammar_of_calls(
    functions: Sequence[Function], tokenizer: Tokenizer, *, several: bool, form: Grammar | None = None
) -> Grammar | None:
    """The grammar of an answer that consists of tool calls.

    It enforces the names, types and enums of arguments and which of them are required, in the order in which the chat
    template lists them. It does not enforce other keywords of the schemas.

    Args:
        several: allow more than one call.
        form: what the answer may be instead of calls.

    Returns:
        None if the form cannot be joined: it is a Lark grammar.

    Raises:
        UsageError: a schema nests too deeply.
    """
    if form is not None and form.kind == "lark":
        return None
    rules = _Rules(tokenizer)
    calls = [rules.call(number, function) for number, function in enumerate(functions)]
    quote = _mark(tokenizer, QUOTE)
    start = ("call+" if several else "call") + (" | form" if form is not None else "")
    lines = [f"start: {start}", f"call: {' | '.join(calls)}", *rules.lines, f"text: {quote} TEXT {quote}"]
    if form is not None:
        lines.append(f"form: {lark_body(form)}")
    return Grammar.lark("\n".join(lines) + _VALUES)


def _mark(tokenizer: Tokenizer, text: str) -> str:
    """The terminal of a control token; of its text, if the tokenizer has no such token."""
    ids = tokenizer.special_tokens([text])
    return f"<[{next(iter(ids))}]>" if ids else json.dumps(text)


class _Rules:
    """Rules for the arguments of functions, numbered in order."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.lines: list[str] = []
        self._tokenizer = tokenizer
        self._count = 0

    def call(self, number: int, function: Function) -> str:
        """Add the rule of one function's calls; its name."""
        arguments = self._value(function.parameters or {"type": "object", "properties": {}}, 0, top=True)
        begin, end = _mark(self._tokenizer, CALL), _mark(self._tokenizer, CALL_END)
        self.lines.append(f"call{number}: {begin} {json.dumps('call:' + function.name)} {arguments} {end}")
        return f"call{number}"

    def _value(self, schema: Any, depth: int, *, top: bool = False) -> str:
        self._check(depth)
        if not isinstance(schema, Mapping):
            return "any"
        options = schema.get("enum", [schema["const"]] if "const" in schema else None)
        if isinstance(options, list) and options and not top:
            return self._rule(" | ".join(self._literal(option, depth) for option in options))
        kind = schema.get("type")
        if isinstance(kind, list) and kind and not top:
            kinds = dict.fromkeys(one if isinstance(one, str) else "any" for one in kind)
            return self._rule(" | ".join(self._value({**schema, "type": one}, depth + 1) for one in kinds))
        if kind == "object" or top:
            return self._object(schema, depth)
        if kind == "array":
            item = self._value(schema.get("items"), depth + 1)
            return self._rule(f'"[" ({item} ("," {item})*)? "]"')
        simple = {"string": "text", "number": "number", "integer": "integer", "null": '"null"'}
        if kind == "boolean":
            return self._rule('"true" | "false"')
        return simple.get(kind, "any") if isinstance(kind, str) else "any"

    def _object(self, schema: Mapping[str, Any], depth: int) -> str:
        properties = schema.get("properties")
        if not isinstance(properties, dict):
            return "anyobject"
        needed = schema.get("required")
        required = {name for name in needed if isinstance(name, str)} if isinstance(needed, list) else set()
        # The chat template's order, the only one in the training data.
        names = sorted(properties, key=str.lower)
        pairs = [self._rule(f"{self._key(name)} {self._value(properties[name], depth + 1)}") for name in names]
        # Two rules per argument: as the first one written, and after others, with a comma before it.
        first, later = '""', '""'
        for name, pair in zip(reversed(names), reversed(pairs), strict=True):
            skip_first, skip_later = ("", "") if name in required else (f" | {first}", f" | {later}")
            first, later = (
                self._rule(f"{pair} {later}{skip_first}"),
                self._rule(f'"," {pair} {later}{skip_later}'),
            )
        return self._rule(f'"{{" {first} "}}"')

    def _literal(self, value: Any, depth: int) -> str:
        self._check(depth)
        if isinstance(value, str):
            return self._quoted(value)
        if isinstance(value, list):
            return _joined('"["', [self._literal(item, depth + 1) for item in value], '"]"')
        if isinstance(value, dict):
            pairs = [f"{self._key(key)} {self._literal(value[key], depth + 1)}" for key in sorted(value, key=str.lower)]
            return _joined('"{"', pairs, '"}"')
        return json.dumps(json.dumps(value))

    def _quoted(self, text: str) -> str:
        quote = _mark(self._tokenizer, QUOTE)
        return f"{quote} {json.dumps(text, ensure_ascii=False)} {quote}" if text else f"{quote} {quote}"

    def _key(self, name: str) -> str:
        if _BARE_KEY.fullmatch(name):
            return json.dumps(f"{name}:", ensure_ascii=False)
        return f'{self._quoted(name)} ":"'

    def _check(self, depth: int) -> None:
        if depth > _MAX_DEPTH:
            raise UsageError(f"a function's parameters nest deeper than {_MAX_DEPTH}: make them flatter")

    def _rule(self, body: str) -> str:
        self._count += 1
        self.lines.append(f"r{self._count}: {body}")
        return f"r{self._count}"


def _joined(begin: str, parts: Iterable[str], end: str) -> str:
    inner = ' "," '.join(parts)
    return f"({begin} {inner} {end})"
